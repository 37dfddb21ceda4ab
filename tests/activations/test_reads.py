"""States pooled over tokens are those that transformers gives, layer by layer, for every family and pooling, adapter off and on."""

import numpy as np
import pytest
import torch

from adapterprobe.activations.record import record
from adapterprobe.adapters.attach import attach, detach
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import TokenReads
from conftest import SEVERAL

RNG = np.random.default_rng(0)
PREFIX = tuple(int(i) for i in RNG.integers(1, 600, 30))
SEQUENCES = [(*PREFIX, *(int(i) for i in RNG.integers(1, 600, n))) for n in (12, 5, 12, 1, 30)]
SEQUENCES += [tuple(int(i) for i in RNG.integers(1, 600, n)) for n in (1, 9, 44)]
# Inside the shared prefix, across its end, behind it, one token, all.
SPANS = ((3, 9), (25, 34), (32, 42), (30, 31), (31, 60), (0, 1), (2, 9), (0, 44))
POOLS = ["last", "first", "mean", "max", "rolling:4", "rolling:100"]


def encoded(reads=(), asked: bool = True) -> Encoded:
    choice = ChoiceTokens((1, 2), (3,)) if asked else ChoiceTokens((), ())
    return Encoded((None,) * len(SEQUENCES), tuple(SEQUENCES), (choice,) * len(SEQUENCES), SPANS, tuple(reads))


def blocks_of(model):
    for path in ("model.layers", "gpt_neox.layers", "transformer.h"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise AssertionError


@torch.no_grad()
def all_states(model, ids) -> torch.Tensor:
    """layers x tokens x width of one sequence."""
    kept: dict[int, torch.Tensor] = {}

    def entering(module, args, kwargs):
        kept[0] = args[0] if args else kwargs["hidden_states"]

    def leaving(place):
        def hook(module, args, output):
            kept[place] = output[0] if isinstance(output, tuple) else output

        return hook

    blocks = blocks_of(model)
    handles = [blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    handles += [block.register_forward_hook(leaving(place)) for place, block in enumerate(blocks, 1)]
    model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack([kept[place][0] for place in sorted(kept)]).float()


def by_hand(model, pool: str) -> np.ndarray:
    """layers x rows x width, one row at a time."""
    rows = []
    for ids, (start, stop) in zip(SEQUENCES, SPANS, strict=True):
        states = all_states(model, ids)[:, start:stop]
        if pool == "last":
            rows.append(states[:, -1])
        elif pool == "first":
            rows.append(states[:, 0])
        elif pool == "mean":
            rows.append(states.mean(1))
        elif pool == "max":
            rows.append(states.max(1).values)
        else:
            n = min(int(pool.split(":")[1]), states.shape[1])
            windows = torch.stack([states[:, i : i + n].mean(1) for i in range(states.shape[1] - n + 1)], 1)
            rows.append(windows.max(1).values)
    return torch.stack(rows, 1).numpy()


@SEVERAL
@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
def test_pooled_states_are_those_of_transformers(family, on, tiny_lm, cache):
    lm = tiny_lm(family)
    wrapped = None
    if on:
        wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="1-2", rank=2, kind="lora"), 0, lm.original)
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3)
    try:
        reads = [TokenReads(SPANS, pool) for pool in POOLS]
        for share in (True, False):
            engine = Engine(lm.model, lm.structure, share=share)
            found = record(engine, encoded(reads), f"{family}{on}", list(range(5)))
            assert found.reads == len(POOLS) and found.dtype == "fp32"
            for which, pool in enumerate(POOLS):
                expected = by_hand(lm.model, pool)
                mine = found.read(which)
                for layer in range(5):
                    got = mine.layer(layer)
                    assert got.shape == expected[layer].shape
                    gap = np.abs(got - expected[layer]).max() / np.abs(expected[layer]).max()
                    assert gap < 1e-4, (pool, layer, share, gap)
            plain = record(engine, encoded(), f"{family}{on}", list(range(5)))
            assert np.array_equal(plain.logprobs, found.logprobs), "the answer is that of a pass that reads nothing"
    finally:
        if wrapped is not None:
            detach(wrapped)


def test_the_key_knows_what_is_read(tiny_lm, cache):
    lm = tiny_lm()
    engine = Engine(lm.model, lm.structure)
    moved = tuple((start, stop + (stop < len(ids))) for (start, stop), ids in zip(SPANS, SEQUENCES, strict=True))
    reads = [[], [TokenReads(SPANS, "mean")], [TokenReads(SPANS, "last")], [TokenReads(moved, "mean")]]
    reads.append([TokenReads(SPANS, "mean"), TokenReads(SPANS, "last")])
    stores = [record(engine, encoded(r), "w", [2]) for r in reads]
    assert len({store.folder for store in stores}) == len(reads)
    both = stores[-1]
    assert both.key != both.read(1).key and np.allclose(both.layer(2), stores[1].layer(2))
    assert np.allclose(both.read(1).layer(2), stores[2].layer(2))


def test_nothing_asked_gives_no_answer(tiny_lm, cache):
    lm = tiny_lm()
    found = record(Engine(lm.model, lm.structure), encoded([TokenReads(SPANS, "mean")], False), "w", [1])
    assert np.isnan(found.logprobs).all() and np.isfinite(found.layer(1)).all()


def test_half_precision_pools_in_fp32(tiny_lm, cache):
    lm = tiny_lm()
    lm.model.to(torch.bfloat16)
    reads = [TokenReads(SPANS, "mean")]
    found = record(Engine(lm.model, lm.structure), encoded(reads), "w16", [0, 3])
    assert found.dtype == "fp32"
    # Entering the first block are embeddings: their mean, in fp32, is exact.
    table = lm.model.get_input_embeddings().weight.float()
    ids, (start, stop) = SEQUENCES[7], SPANS[7]
    assert np.allclose(found.layer(0)[7], table[list(ids[start:stop])].mean(0).numpy(), rtol=1e-6, atol=1e-6)
    exact = record(Engine(lm.model, lm.structure), encoded([TokenReads(SPANS, "last")]), "w16", [3])
    assert exact.dtype == "bf16", "a state that was computed is kept as it was"
