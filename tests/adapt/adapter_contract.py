"""What every adapter must do, whatever its kind and model."""

import torch
from peft import PeftModel

from adapterprobe.adapt import adapter_merged, adapter_off, attach, train_adapter
from adapterprobe.adapt.attach import detach, trainable
from adapterprobe.adapt.kinds import KINDS
from adapterprobe.engine import Engine


def logits(lm, encoded):
    engine = Engine(lm.model, lm.structure)
    with torch.no_grad():
        return torch.cat([engine.run(b, states=False).logits.float() for b in engine.plan(encoded.ids)])


def contract(lm, fresh, encoded, config, folder, tolerance=1e-4, least=1e-3):
    """Train an adapter on `lm` and hold it to everything; `fresh` is the same model untouched.

    Args:
        tolerance: how far the merged model may be from the adapter on, of the largest logit.
        least: how much the adapter must change some logit.
    """
    before = logits(lm, encoded)
    wrapped = attach(lm.model, lm.structure, config, 0)
    start = {n: p.detach().clone() for n, p in trainable(wrapped).items()}
    assert start
    with adapter_off(lm.model):
        assert torch.equal(before, logits(lm, encoded)), "off before training"
    result = train_adapter(wrapped, Engine(lm.model, lm.structure), encoded, encoded, config, 0, folder)
    assert result.epochs[-1]["train_loss"] < result.epochs[0]["train_loss"]
    assert result.parameters == sum(p.numel() for p in start.values())
    assert all(not torch.equal(start[n], p) for n, p in trainable(wrapped).items()), "every tensor moved"
    with adapter_off(lm.model):
        assert torch.equal(before, logits(lm, encoded)), "off after training"
    on = logits(lm, encoded)
    assert (on - before).abs().max() > least
    with adapter_merged(lm.model):
        assert (logits(lm, encoded) - on).abs().max() < tolerance * on.abs().max()
    assert torch.equal(on, logits(lm, encoded)), "leaving the merged state changes nothing"
    wrapped.save_pretrained(folder / "adapter", save_embedding_layers=False)
    detach(wrapped)
    assert torch.equal(before, logits(lm, encoded)), "detached"
    full = KINDS[config.kind].full_precision
    PeftModel.from_pretrained(fresh.model, str(folder / "adapter"), autocast_adapter_dtype=full).eval()
    assert (logits(fresh, encoded) - on).abs().max() < 1e-5 * on.abs().max()
