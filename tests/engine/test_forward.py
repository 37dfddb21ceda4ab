"""The engine gives what the plain forward pass gives, for every family."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterprobe.engine import Batch, Engine, Trunk, plan_batches, useful_tokens
from adapterprobe.models import find_structure
from conftest import SEVERAL, tiny


def sequences(n_prefixes: int = 3, rows: int = 4) -> list[list[int]]:
    """Prompts that share prefixes longer than the tiny models' attention window, and one that shares none."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(n_prefixes):
        prefix = rng.integers(1, 600, 24 + k).tolist()
        found += [prefix + rng.integers(1, 600, rng.integers(2, 9)).tolist() for _ in range(rows)]
    return [*found, rng.integers(1, 600, 11).tolist()]


def plain(model, ids):
    """Logits and states at the last position, one unpadded row at a time."""
    logits, states = [], []
    for row in ids:
        with torch.no_grad():
            out = model(torch.tensor([row]), output_hidden_states=True, use_cache=False)
        logits.append(out.logits[0, -1])
        states.append(torch.stack([h[0, -1] for h in out.hidden_states]))
    return torch.stack(logits), torch.stack(states, 1)


@SEVERAL
@pytest.mark.parametrize("share", [True, False])
def test_equals_plain_forward(family, share):
    model = tiny(family)
    structure = find_structure(model)
    engine = Engine(model, structure, share=share)
    assert engine.share == share
    ids = sequences()
    expected, expected_states = plain(model, ids)
    logits = torch.empty_like(expected)
    states = torch.empty_like(expected_states)
    batches = plan_batches(ids, token_budget=40, share=share)
    assert any(len(b.prefixes) > 1 for b in plan_batches(ids)), "several prefixes should run in one pass"
    with torch.inference_mode():
        for batch in batches:
            out = engine.run(batch)
            logits[list(batch.rows)] = out.logits
            states[:, list(batch.rows)] = out.states
    assert (logits - expected).abs().max() <= 1e-3 * expected.abs().max()
    # transformers gives its last hidden state after the final norm; ours is the residual stream before it.
    scale = expected_states.abs().amax(dim=(1, 2))
    gaps = (states[:-1] - expected_states[:-1]).abs().amax(dim=(1, 2))
    assert (gaps <= 1e-3 * scale[:-1]).all()
    normed = structure.final_norm(states[-1])
    assert (normed - expected_states[-1]).abs().max() <= 1e-3 * scale[-1]
    assert (states[-1] - expected_states[-1]).abs().max() > 1e-2 * scale[-1], "the norm should matter"


@SEVERAL
def test_gradients_equal_the_plain_step(family):
    model = tiny(family).requires_grad_(True)
    ids = sequences(2, 3)[:-1]
    model.zero_grad()
    for row in ids:
        model(torch.tensor([row]), use_cache=False).logits[0, -1].logsumexp(0).backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    engine = Engine(model, find_structure(model))
    (batch,) = plan_batches(ids)
    engine.run(batch, states=False).logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        gap = (parameter.grad - expected[name]).abs().max()
        assert gap <= 1e-3 * expected[name].abs().max() + 1e-7, name


def test_a_model_without_cache_falls_back(capsys):
    model = tiny("llama")
    original = model.forward
    model.forward = lambda input_ids=None, past_key_values=None, use_cache=None: original(input_ids=input_ids)
    engine = Engine(model, find_structure(model))
    assert engine.share is False
    assert "not shared" in capsys.readouterr().err


def test_hooks_are_gone_after_an_error():
    model = tiny("llama")
    structure = find_structure(model)
    engine = Engine(model, structure)
    with pytest.raises(IndexError):
        engine.run(Batch((), (0,), (0,), ((10_000,),)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=25), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_plans_hold_every_row_once_and_whole(ids, budget):
    batches = plan_batches(ids, budget, floor=2)
    seen = {}
    for batch in batches:
        assert len({len(p) for p in batch.prefixes}) <= 1
        for owner, row, suffix in zip(batch.owners, batch.rows, batch.suffixes):
            prefix = batch.prefixes[owner] if batch.prefixes else ()
            assert suffix, "the answer position is never shared"
            assert row not in seen
            seen[row] = list(prefix + suffix)
    assert seen == dict(enumerate(ids))
    assert useful_tokens(batches) <= sum(map(len, ids)) + 1


def test_sharing_spares_tokens():
    ids = sequences(3, 20)
    assert useful_tokens(plan_batches(ids)) < 0.4 * sum(map(len, ids))


@SEVERAL
@pytest.mark.parametrize("share", [True, False])
def test_starting_from_the_trunk_changes_nothing(family, share):
    """Logits, states above, and gradients above are those of the whole pass; the blocks below are not run."""
    model = tiny(family)
    structure = find_structure(model)
    engine = Engine(model, structure, share=share)
    ids = sequences()
    trunk = Trunk(2)
    trunk.collect(engine, plan_batches(ids, token_budget=50, share=share))
    for parameter in structure.blocks[2].parameters():
        parameter.requires_grad_(True)

    def whole(batches):
        model.zero_grad()
        outs = {}
        for batch in batches:
            out = engine.run(batch, layers=[3, 4])
            out.logits.logsumexp(1).sum().backward()
            outs.update({r: (lo.detach(), st) for r, lo, st in zip(batch.rows, out.logits, out.states.transpose(0, 1))})
        return outs, [p.grad.clone() for p in structure.blocks[2].parameters()]

    expected, gradients = whole(plan_batches(ids, token_budget=90, share=share))
    ran = []
    handle = structure.blocks[0].register_forward_hook(lambda m, a, o: ran.append(m.forward.__qualname__))
    with engine.starting_from(trunk):
        # Other batches than the trunk was collected with: prefixes may end elsewhere.
        got, again = whole(plan_batches(ids, token_budget=90, share=share))
    handle.remove()
    assert ran and all("resumed" in name for name in ran), "the blocks below must not run"
    for row in expected:
        for one, two in zip(expected[row], got[row]):
            assert (one - two).abs().max() <= 1e-3 * one.abs().max()
    for one, two in zip(gradients, again):
        assert (one - two).abs().max() <= 1e-3 * one.abs().max() + 1e-6
    assert "forward" not in structure.blocks[0].__dict__, "the blocks are themselves again"
    after, _ = whole(plan_batches(ids, token_budget=90, share=share))
    assert all(torch.equal(expected[r][0], after[r][0]) for r in expected)
