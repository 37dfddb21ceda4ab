"""Passes that run out of memory are taken again in halves, and give what the whole ones give."""

import contextlib

import numpy as np
import pytest
import torch

from adapterprobe.activations import record, record_tokens
from adapterprobe.activations.in_memory import states_in_memory
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.engine.memory import halves, out_of_memory
from adapterprobe.engine.outcomes import answer_logprobs
from adapterprobe.errors import ModelError
from adapterprobe.models import find_structure
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import TokenReads
from conftest import tiny

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB"


@contextlib.contextmanager
def memory_for(engine: Engine, tokens: int, at_block: int = 2):
    """A device on which a pass of more tokens runs out of memory, in the middle of the model."""
    failed = []

    def enter(module, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]
        if states.shape[0] * states.shape[1] > tokens:
            failed.append(states.shape[1])
            raise torch.OutOfMemoryError(MESSAGE)

    handle = engine.structure.blocks[at_block].register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield failed
    finally:
        handle.remove()


def _encoded(reads: bool) -> Encoded:
    rng = np.random.default_rng(0)
    prefix = rng.integers(1, 600, 20).tolist()
    ids = [(*(prefix if row % 3 else ()), *rng.integers(1, 600, 6 + row % 4).tolist()) for row in range(14)]
    choices = tuple(ChoiceTokens((5,), (9,)) for _ in ids)
    first = tuple((2, len(row) - 1) for row in ids)
    last = tuple((len(row) - 2, len(row)) for row in ids)
    found = (TokenReads(first, "mean"), TokenReads(last, "last")) if reads else ()
    return Encoded(tuple(ids), tuple(ids), choices, reads=found)


@pytest.fixture(params=["packed", "rows"])
def engine(request):
    model = tiny("llama")
    return Engine(model, find_structure(model), share=request.param == "packed")


def test_halves_keep_rows_in_order(engine):
    (batch, *_) = engine.plan(_encoded(False).ids)
    first, second = halves(batch)
    assert first.rows + second.rows == batch.rows and first.sequences + second.sequences == batch.sequences
    assert abs(len(first.rows) - len(second.rows)) <= 1


@pytest.mark.parametrize("reads", [False, True])
def test_what_is_recorded_is_the_same(engine, reads, cache):
    encoded, layers = _encoded(reads), [0, 1, 2, 3, 4]
    layers = layers[: engine.structure.n_layers + 1]
    whole = record(engine, encoded, "w", layers)
    with memory_for(engine, 60) as failed:
        parts = record(engine, encoded, "other", layers)
        memory = states_in_memory(engine, encoded, layers, "scoring")
        said = answer_logprobs(engine, encoded)
    assert failed
    for layer in layers:
        for which in range(max(1, len(encoded.reads))):
            expected = whole.read(which).layer(layer) if reads else whole.layer(layer)
            for found in (parts, memory):
                got = found.read(which).layer(layer) if reads else found.layer(layer)
                assert np.allclose(got, expected, atol=1e-4 * np.abs(expected).max()), (layer, which)
    assert np.allclose(parts.logprobs, whole.logprobs, atol=1e-4)
    assert np.allclose(said[:, :2].numpy(), whole.logprobs, atol=1e-4)


@pytest.mark.parametrize("at_block", [0, 3])
def test_a_trunk_is_fed_by_parts(engine, cache, at_block):
    """Memory may run out before the trunk's block, or behind it, when its states are kept already."""
    encoded, layers = _encoded(False), list(range(engine.structure.n_layers + 1))
    whole = record(engine, encoded, "w", layers)
    trunk = LowerBlockCache(2, engine, engine.plan(encoded.ids))
    with memory_for(engine, 60, min(at_block, engine.structure.n_layers - 1)) as failed:
        record(engine, encoded, "fed", layers, feed=trunk)
        trunk.collect(engine)
    assert failed
    known = [batch for batch in engine.plan(encoded.ids) if trunk.knows(batch)]
    assert known
    resumed = record(engine, encoded, "resumed", layers, trunk=lambda: trunk)
    for layer in layers[3:]:
        expected = whole.layer(layer)
        assert np.allclose(resumed.layer(layer), expected, atol=1e-4 * np.abs(expected).max())


def test_a_trunk_that_grew_is_still_written_to(cache):
    """Fed in inference mode, and filled afterwards in none: as when a recording goes on where it was killed."""
    model = tiny("llama")
    engine = Engine(model, find_structure(model))
    encoded = _encoded(False)
    batches = engine.plan(encoded.ids, 60)
    trunk = LowerBlockCache(2, engine, batches)
    trunk._states = trunk._states[:1]
    with torch.inference_mode():
        engine.run_in_parts(batches[-1], feed=trunk)
    trunk.collect(engine)
    assert all(map(trunk.knows, batches))


def test_tokens_are_recorded_by_parts(engine, cache):
    encoded = _encoded(False)
    whole = record_tokens(engine, encoded, "w", [2], 4, "tokens")
    with memory_for(engine, 60, 1) as failed:
        parts = record_tokens(engine, encoded, "parts", [2], 4, "tokens")
    assert failed
    assert np.allclose(parts.layer(2), whole.layer(2), atol=1e-4)


def test_a_prompt_that_does_not_fit_is_told(engine, cache):
    encoded = _encoded(False)
    with (
        memory_for(engine, 5),
        pytest.raises(ModelError, match=r"a single prompt of \d+ tokens does not fit into memory \(CUDA out"),
    ):
        record(engine, encoded, "w", [1])


def test_other_errors_are_none_of_its_business(engine, cache):
    def broken(module, args, kwargs):
        raise RuntimeError("shapes do not fit")

    handle = engine.structure.blocks[1].register_forward_pre_hook(broken, with_kwargs=True)
    try:
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            record(engine, _encoded(False), "w", [1])
    finally:
        handle.remove()
    assert not out_of_memory(RuntimeError("shapes do not fit")) and out_of_memory(MemoryError("out of memory"))
