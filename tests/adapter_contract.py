"""What every adapter must do, whatever its kind and model."""

import numpy as np
import torch
from peft import PeftModel

from adapterprobe.adapters import adapter_merged, adapter_off, attach, train_adapter
from adapterprobe.adapters.attach import detach, fixed_entries, trainable
from adapterprobe.adapters.kinds import KINDS
from adapterprobe.adapters.residual_adapter import load_residual
from adapterprobe.data import load_relation
from adapterprobe.engine import Engine
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.encoded import encode


def asked_capitals(tokenizer, groups=16):
    """Prompts about a few capitals under both conditions, behind two demonstrations; the first eight examples demonstrate."""
    relation = load_relation("capitals")
    examples = relation.examples(relation.groups[:groups], "question", 0)
    demos = draw_demo_sets(examples[:8], 2, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples[8:], "x", ["truth", "lie"], templates_for(relation, "question"), demos, "plain", 0)
    return encode(tokenizer, prompts, None)


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
    fixed = sum(int(where.sum()) for where in fixed_entries(wrapped).values())
    assert result.parameters == sum(p.numel() for p in start.values()) - fixed
    for name, where in fixed_entries(wrapped).items():
        assert torch.equal(trainable(wrapped)[name][where], start[name][where])
    # AdaLoRA may take all ranks of a module away: its singular values are nought then, as at the start.
    now = trainable(wrapped)
    gone = [n.split("lora_E")[0] for n, p in now.items() if config.kind == "adalora" and "lora_E" in n and not p.any()]
    left = {n: p for n, p in now.items() if not n.startswith(tuple(gone))}
    assert left and all(not torch.equal(start[n], p) for n, p in left.items()), "every tensor moved"
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
    if config.kind == "linear":
        load_residual(fresh.model, fresh.structure.blocks, fresh.structure.width, folder / "adapter")
        assert torch.equal(logits(fresh, encoded), on)
        return
    full = KINDS[config.kind].full_precision
    PeftModel.from_pretrained(fresh.model, str(folder / "adapter"), autocast_adapter_dtype=full).eval()
    assert (logits(fresh, encoded) - on).abs().max() < 1e-5 * on.abs().max()
