"""Recording: what was computed is what is read, resumed after a stop, and never twice."""

import sys

import numpy as np
import pytest
import torch

from adapterprobe import hidden
from adapterprobe.activations import record
from adapterprobe.activations.record import _finished
from adapterprobe.activations.store import from_stored, to_stored
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.errors import CacheError, ModelError
from adapterprobe.models import find_structure
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.prompts.encoded import Encoded
from conftest import tiny


def encoded(n: int = 60) -> Encoded:
    rng = np.random.default_rng(0)
    prefix = rng.integers(1, 600, 20).tolist()
    ids = tuple(tuple(prefix + rng.integers(1, 600, 3 + i % 5).tolist()) for i in range(n))
    return Encoded((None,) * n, ids, (ChoiceTokens((1, 2), (3,)),) * n)


def engine(counter=None):
    model = tiny("llama")
    if counter is not None:
        model.register_forward_hook(lambda *a: counter.append(1))
    made = Engine(model, find_structure(model))
    if counter is not None:
        counter.clear()
    return made


def test_states_are_those_of_the_model(cache):
    data = encoded(7)
    states = record(engine(), data, "w", [0, 2, 4])
    model = tiny("llama")
    for row, ids in enumerate(data.ids):
        expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (0, 2):
            assert np.allclose(states.layer(layer)[row], expected[layer][0, -1].numpy(), atol=1e-4)
    assert states.layer(2).shape == (7, 32) and states.logprobs.shape == (7, 2)
    assert np.array_equal(hidden.open(states.folder).layer(4), states.layer(4))
    with pytest.raises(CacheError, match="layer 1 was not recorded"):
        states.layer(1)


def test_second_time_makes_no_forward_pass(cache):
    counter = []
    eng = engine(counter)
    first = record(eng, encoded(), "w", [1])
    assert counter
    counter.clear()
    again = record(eng, encoded(), "w", [1])
    assert not counter and again.folder == first.folder
    assert record(eng, encoded(), "other weights", [1]).folder != first.folder
    assert record(eng, encoded(59), "w", [1]).folder != first.folder


def test_recording_from_the_trunk_runs_no_block_below(cache):
    data = encoded()
    plain = record(engine(), data, "w", [3, 4])
    eng = engine()
    trunk = LowerBlockCache(2, eng, eng.plan(data.ids))
    trunk.collect(eng)
    eng.structure.blocks[0].mlp.register_forward_hook(lambda *a: pytest.fail("a block below the adapter was run"))
    above = record(eng, data, "w", [3, 4], trunk=lambda: trunk)
    assert above.folder != plain.folder
    for layer in (3, 4):
        assert np.allclose(above.layer(layer), plain.layer(layer), atol=1e-3)
    assert np.allclose(above.logprobs, plain.logprobs, atol=1e-3)


def test_a_recording_feeds_the_trunk(cache):
    eng = engine()
    data = encoded()
    trunk = LowerBlockCache(2, eng, eng.plan(data.ids))
    record(eng, data, "w", [0, 4], feed=trunk)
    assert all(trunk.knows(batch) for batch in eng.plan(data.ids))
    eng.structure.blocks[0].register_forward_hook(lambda *a: pytest.fail("what is known is not run again"))
    trunk.collect(eng)


@pytest.mark.parametrize("flush", [0.0, 1e9])
def test_stopped_recording_goes_on_to_the_same_result(cache, monkeypatch, flush):
    """After a kill no finished batch is computed again, flushed or not; after a new start of the machine only flushed
    ones count."""
    whole = record(engine(), encoded(300), "w", [0, 4], token_budget=8)
    expected = [whole.layer(0), whole.layer(4), whole.logprobs]
    eng = engine()
    run, seen = eng.run, []

    def stop(batch, **options):
        if len(seen) == 30:
            raise KeyboardInterrupt
        seen.append(batch)
        return run(batch, **options)

    monkeypatch.setattr(eng, "run", stop)
    monkeypatch.setattr(sys.modules["adapterprobe.activations.record"], "FLUSH_EVERY", flush)
    with pytest.raises(KeyboardInterrupt):
        record(eng, encoded(300), "v", [0, 4], token_budget=8)
    if flush:
        monkeypatch.setattr(sys.modules["adapterprobe.activations.record"], "_boot", lambda: "another start")
        (part,) = cache.glob("states/*.part")
        assert _finished(part) == 0
        monkeypatch.undo()
        monkeypatch.setenv("ADAPTERPROBE_CACHE", str(cache))
        assert _finished(part) == 30
    counter = []
    resumed = record(engine(counter), encoded(300), "v", [0, 4], token_budget=8)
    assert 0 < len(counter) <= len(eng.plan(encoded(300).ids, 8)) - 30, "finished batches are not computed again"
    for one, two in zip(expected, [resumed.layer(0), resumed.layer(4), resumed.logprobs], strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_number_formats_round_trip(dtype):
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    values = (torch.randn(3, 5) * 100).to(kind)
    assert np.array_equal(from_stored(to_stored(values, dtype)), values.float().numpy())


def test_nan_states_are_refused(cache):
    eng = engine()
    with torch.no_grad():
        eng.structure.blocks[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="after 3 blocks are not finite"):
        record(eng, encoded(5), "w", [0, 1, 2, 3, 4])


def test_a_torn_note_of_an_unfinished_recording_is_made_again(cache):
    whole = record(engine(), encoded(7), "w", [1])
    part = whole.folder.with_name(whole.folder.name + ".part")
    whole.folder.rename(part)
    for name in ("meta.json", "finished-batches"):
        (part / name).write_text("")
    again = record(engine(), encoded(7), "w", [1])
    assert again.layer(1).shape == (7, 32) and np.abs(again.layer(1)).max() > 0


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(CacheError, match="no hidden states"):
        hidden.open(tmp_path)
