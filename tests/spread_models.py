"""What is done with a model that is spread out over devices, to be held against the same on one."""

import torch

from adapterprobe.adapters import attach, train_adapter
from adapterprobe.adapters.adapter_folder import adapter_loaded, base_model_record, save_adapter
from adapterprobe.adapters.attach import detach, trainable
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.engine.fidelity import faithful
from adapterprobe.engine.sampling import Sampling, write_replies
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.readout import TokenReads
from conftest import tiny

ADAPTER = AdapterConfig(layers="1-3", rank=4, alpha=8, epochs=2, lr=0.01, batch_size=8, micro_batch=8)


def saved(family: str, tokenizer, folder):
    tiny(family).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spread_out(folder, blocks: dict[int, str], rest: str = "cpu") -> dict[str, str]:
    """A device map of every block and of what stands beside them."""
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    base = lm.structure.blocks_path.rpartition(".")[0]
    beside = [
        f"{base}.{name}"
        for name, module in lm.model.get_submodule(base).named_children()
        if module is not lm.structure.blocks
    ]
    above = [name for name, _ in lm.model.named_children() if name != base.split(".")[0]]
    found = dict.fromkeys([*beside, *above], rest)
    return found | {f"{lm.structure.blocks_path}.{i}": blocks.get(i, rest) for i in range(lm.structure.n_layers)}


def passes(lm: LanguageModel, ids) -> dict[str, torch.Tensor]:
    """What passes give: logits, states, pooled states, a trunk, steering, replies."""
    engine = Engine(lm.model, lm.structure)
    (batch,) = engine.plan(ids)
    found = {}
    with torch.no_grad():
        out = engine.run(batch)
        found |= {"logits": out.logits, "states": out.recorded}
        reads = TokenReads(tuple((1, len(row)) for row in ids), "mean")
        found["pooled"] = engine.run(batch, reads=[reads]).recorded
        trunk = LowerBlockCache(2, engine, [batch])
        trunk.collect(engine)
        with engine.starting_from(trunk):
            found["above the trunk"] = engine.run(batch, layers=[3, 4]).recorded
        with engine.steered(2, torch.ones(lm.structure.width)):
            found["steered"] = engine.run(batch).logits
        with engine.reading_tokens(batch, [1, 3], reads.spans) as (states, _):
            found["tokens"] = torch.cat([states[1], states[3]])
    *_, replies = write_replies(
        engine, [tuple(row) for row in ids], list("abcdefghij")[: len(ids)], Sampling(2, 1.0, 0.9, 8), [0]
    )
    found["replies"] = torch.tensor([[*reply.tokens, *[-1] * (8 - len(reply.tokens))] for reply in replies])
    return {name: tensor.cpu().clone() for name, tensor in found.items()}


def everything(lm: LanguageModel, ids, encoded, tmp_path) -> dict[str, torch.Tensor]:
    """What is done with a model anywhere: passes, and an adapter trained, saved and loaded."""
    engine = Engine(lm.model, lm.structure)
    (batch,) = engine.plan(ids)
    found = passes(lm, ids)
    faithful(engine, ids[:2])
    record = base_model_record(lm)
    (tmp_path / "checkpoints").mkdir(parents=True)
    wrapped = attach(lm.model, lm.structure, ADAPTER, 0)
    train_adapter(wrapped, engine, encoded, encoded, ADAPTER, 0, tmp_path / "checkpoints")
    found |= {name: p.detach() for name, p in trainable(wrapped).items()}
    save_adapter(wrapped, record, tmp_path / "adapter")
    detach(wrapped)
    with adapter_loaded(lm, tmp_path / "adapter"), torch.no_grad():
        found["adapter on"] = engine.run(batch).recorded
    # The adapter of whole blocks is ours, not PEFT's.
    whole_blocks = attach(lm.model, lm.structure, ADAPTER.model_copy(update={"kind": "linear"}), 0)
    with torch.no_grad():
        for parameter in trainable(whole_blocks).values():
            parameter.add_(0.01)
        found["blocks adapted"] = engine.run(batch).recorded
    detach(whole_blocks)
    with torch.no_grad():
        assert torch.equal(engine.run(batch).recorded.cpu(), found["states"]), "the model is what it was"
    return {name: tensor.cpu().clone() for name, tensor in found.items()}


def alike(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            assert (got[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), name
        else:
            assert torch.equal(got[name], tensor), name


def states_with_adapter(lm, config, encoded, folder) -> torch.Tensor:
    engine = Engine(lm.model, lm.structure)
    (batch,) = engine.plan(encoded.ids[:6])
    (folder / "checkpoints").mkdir(parents=True)
    record = base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, config, 0)
    train_adapter(wrapped, engine, encoded, encoded, config, 0, folder / "checkpoints")
    save_adapter(wrapped, record, folder / "adapter")
    detach(wrapped)
    with adapter_loaded(lm, folder / "adapter"), torch.no_grad():
        return engine.run(batch).recorded
