"""The engine gives what the plain forward pass gives, for every family."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.engine import Batch, Engine, Group, LowerBlockCache, plan_batches, useful_tokens
from adapterprobe.engine.packed import packed_attention
from adapterprobe.models import find_structure
from conftest import FAMILIES, SEVERAL, tiny


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
    assert max(len(b.groups) for b in plan_batches(ids)) > 2, "several prefixes should run in one pass"
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


@SEVERAL
def test_with_and_without_gradients_it_is_the_same_attention(family):
    """Without gradients a fused kernel is used where the model allows it; both give the same."""
    model = tiny(family)
    engine = Engine(model, find_structure(model))
    (batch,) = plan_batches(sequences())
    model.get_input_embeddings().weight.requires_grad_(True)
    explicit = engine.run(batch, states=False).logits
    assert explicit.requires_grad
    with torch.no_grad():
        fused = engine.run(batch, states=False).logits
    assert (explicit - fused).abs().max() <= 1e-4 * fused.abs().max()


def test_capped_scores_and_wide_windows():
    """Gemma 2 caps attention scores, and its windows are wider than the prompts: every path of the attention."""
    config = CONFIG_MAPPING["gemma2"](
        **(FAMILIES["gemma3_text"] | {"sliding_window": 400}), attn_logit_softcapping=2.0, final_logit_softcapping=5.0
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    engine = Engine(model, find_structure(model))
    assert engine.share
    ids = sequences()
    expected, _ = plain(model, ids)
    assert expected.abs().max() > 1
    with torch.inference_mode():
        for batch in plan_batches(ids):
            got = engine.run(batch, states=False).logits
            assert (got - expected[list(batch.rows)]).abs().max() <= 1e-3 * expected.abs().max()


def test_the_models_own_attention_is_back_after_a_pass():
    model = tiny("llama")
    before = model.config._attn_implementation
    Engine(model, find_structure(model))
    assert model.config._attn_implementation == before != "adapterprobe_packed"


def test_unknown_inputs_of_attention_are_refused():
    with pytest.raises(NotImplementedError, match="attention with s_aux"):
        packed_attention(None, None, None, None, None, s_aux=torch.ones(1))


def test_what_mixes_neighbouring_tokens_is_not_packed(capsys):
    """LFM2's short convolutions run over the whole row: packed prompts would leak into each other."""
    config = CONFIG_MAPPING["lfm2"](
        vocab_size=600,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv", "conv"],
    )
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
        engine = Engine(model, find_structure(model))
        assert engine.share is False
    assert "other results with packed rows" in capsys.readouterr().err
    model = model.float()
    engine = Engine(model, find_structure(model))
    ids = sequences()
    expected, _ = plain(model, ids)
    with torch.inference_mode():
        for batch in engine.plan(ids):
            got = engine.run(batch, states=False).logits
            assert (got - expected[list(batch.rows)]).abs().max() <= 1e-3 * expected.abs().max()


def test_a_model_that_cannot_be_packed_falls_back(capsys):
    model = tiny("llama")
    original = model.forward
    model.forward = lambda input_ids=None, use_cache=None: original(input_ids=input_ids)
    engine = Engine(model, find_structure(model))
    assert engine.share is False
    assert "not shared" in capsys.readouterr().err


def test_hooks_are_gone_after_an_error():
    model = tiny("llama")
    structure = find_structure(model)
    engine = Engine(model, structure)
    with pytest.raises(IndexError):
        engine.run(Batch((Group((), (0,), ((10_000,),)),)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=25), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_plans_hold_every_row_once_and_whole(ids, budget):
    batches = plan_batches(ids, budget, floor=2)
    seen = {}
    for batch in batches:
        assert all(suffix for group in batch.groups for suffix in group.suffixes), "the answer position is never shared"
        for row, tokens in zip(batch.rows, batch.sequences, strict=True):
            assert row not in seen
            seen[row] = list(tokens)
    assert seen == dict(enumerate(ids))
    assert useful_tokens(batches) <= sum(map(len, ids)) + 1


def test_sharing_spares_tokens():
    ids = sequences(3, 20)
    assert useful_tokens(plan_batches(ids)) < 0.4 * sum(map(len, ids))


@SEVERAL
@pytest.mark.parametrize(("share", "limit"), [(True, 1 << 30), (True, 0), (False, 1 << 30)])
def test_starting_from_the_trunk_changes_nothing(family, share, limit, cache):
    """Logits, states above, and gradients above are those of the whole pass; the blocks below are not run."""
    model = tiny(family)
    structure = find_structure(model)
    engine = Engine(model, structure, share=share)
    ids = sequences()
    trunk = LowerBlockCache(2, engine, plan_batches(ids, token_budget=50, share=share), limit=limit)
    assert trunk.on_disk == (limit == 0)
    trunk.collect(engine)
    for parameter in structure.blocks[2].parameters():
        parameter.requires_grad_(True)

    def whole(batches):
        model.zero_grad()
        outs = {}
        for batch in batches:
            out = engine.run(batch, layers=[3, 4])
            out.logits.logsumexp(1).sum().backward()
            outs.update(
                {
                    r: (lo.detach(), st)
                    for r, lo, st in zip(batch.rows, out.logits, out.states.transpose(0, 1), strict=True)
                }
            )
        return outs, [p.grad.clone() for p in structure.blocks[2].parameters()]

    expected, gradients = whole(plan_batches(ids, token_budget=90, share=share))
    ran = []
    handle = structure.blocks[0].register_forward_hook(lambda m, a, o: ran.append(m.forward.__qualname__))
    with engine.starting_from(trunk):
        # Other batches than the trunk was collected with: prefixes may end elsewhere.
        got, again = whole(plan_batches(ids, token_budget=90, share=share))
    handle.remove()
    assert ran and all("passing" in name for name in ran), "the blocks below must not run"
    for row in expected:
        for one, two in zip(expected[row], got[row], strict=True):
            assert (one - two).abs().max() <= 1e-3 * one.abs().max()
    for one, two in zip(gradients, again, strict=True):
        assert (one - two).abs().max() <= 1e-3 * one.abs().max() + 1e-6
    assert "forward" not in structure.blocks[0].__dict__, "the blocks are themselves again"
    after, _ = whole(plan_batches(ids, token_budget=90, share=share))
    assert all(torch.equal(expected[r][0], after[r][0]) for r in expected)


@SEVERAL
@pytest.mark.parametrize("grad", [False, True])
def test_suffixes_of_one_token(family, grad):
    """Seen on an accelerator, and here wherever gradients or a window ask for explicit scores: their shapes did not fit."""
    model = tiny(family)
    engine = Engine(model, find_structure(model))
    prefix = tuple(range(1, 30))
    batch = Batch((Group(prefix, (0, 1), ((5,), (6,))),))
    with torch.set_grad_enabled(grad):
        got = engine.run(batch)
        engine.share = False
        expected = engine.run(batch)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=1e-4)
