"""Steps: equal however they are cut, in less memory, in fp16, and never silently broken."""

import json

import numpy as np
import pytest
import torch

from adapter_contract import asked_capitals
from adapterprobe.adapters import attach, train_adapter
from adapterprobe.adapters import train as training
from adapterprobe.adapters.attach import trainable
from adapterprobe.adapters.batching import micro_batches
from adapterprobe.adapters.gradient_step import Stepper
from adapterprobe.adapters.objectives import make_targets
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import ModelError
from conftest import SEVERAL

CONFIG = AdapterConfig(layers="1-3", rank=4, alpha=8, epochs=2, lr=0.01, batch_size=16, micro_batch=16, patience=9)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return asked_capitals(tokenizer)


def stepper(lm, encoded, config=CONFIG, share=True, noise=0.3):
    wrapped = attach(lm.model, lm.structure, config, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(wrapped).values():
            parameter.add_(noise * torch.randn_like(parameter) * parameter.abs().mean().clamp(min=0.05))
    engine = Engine(lm.model, lm.structure, share=share)
    wrapped.train()
    return Stepper(wrapped, engine, encoded, make_targets(config, encoded.prompts), config, (), config.micro_batch)


def gradients(made, encoded):
    (batch,) = micro_batches(encoded.subset(range(16)), 16, np.random.default_rng(0))
    loss = made.gradients([batch], 0, 0)
    return loss, {n: p.grad.clone() for n, p in trainable(made.wrapped).items()}


def near(first, second, tolerance):
    return all((first[n] - second[n]).abs().max() <= tolerance * first[n].abs().max() for n in first)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_accumulated_gradients_are_those_of_the_large_batch(size, share, tiny_lm, encoded):
    whole = gradients(stepper(tiny_lm(), encoded, share=share), encoded)
    cut = stepper(tiny_lm(), encoded, share=share)
    cut.rows = size
    parts = gradients(cut, encoded)
    assert np.isclose(whole[0], parts[0], rtol=1e-5)
    assert near(whole[1], parts[1], 1e-4)


@SEVERAL
@pytest.mark.parametrize("share", [True, False])
def test_checkpointed_activations_give_the_same_gradients(family, share, tiny_lm, encoded):
    plain = gradients(stepper(tiny_lm(family), encoded, share=share), encoded)
    lm = tiny_lm(family)
    made = stepper(lm, encoded, share=share)
    calls = []
    norm = next(iter(lm.structure.blocks[2].children()))
    handle = norm.register_forward_pre_hook(lambda *a: calls.append(1))
    with training.activations_again(lm.model, True):
        again = gradients(made, encoded)
    assert len(calls) == 2, "the block was run a second time"
    assert near(plain[1], again[1], 1e-5) and plain[0] == again[0]
    gradients(made, encoded)
    assert len(calls) == 3, "not any longer"
    handle.remove()


def test_memory_that_runs_out_halves_the_batch(tiny_lm, encoded, capsys):
    """Whether it runs out forward or in the backward pass, when some gradients are there already."""
    whole = gradients(stepper(tiny_lm(), encoded), encoded)
    for place in ("forward", "backward"):
        made = stepper(tiny_lm(), encoded)

        def fail(part, count, made=made, place=place, plain=made._one):
            if len(part.rows) > 5:
                if place == "backward":
                    plain(part, count)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(part, count)

        made._one = fail
        loss, found = gradients(made, encoded)
        assert made.rows == 4 and np.isclose(loss, whole[0], rtol=1e-5) and near(whole[1], found, 1e-4)
    assert "going on with 8 prompts a pass" in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_alone(tiny_lm, encoded):
    made = stepper(tiny_lm(), encoded)

    def fail(part, count):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    made._one = fail
    with pytest.raises(ModelError, match="a single prompt of .* tokens does not fit into memory"):
        gradients(made, encoded)

    def other(part, count):
        raise RuntimeError("something else")

    made._one = other
    with pytest.raises(RuntimeError, match="something else"):
        gradients(made, encoded)


def test_a_smaller_batch_is_kept_over_a_stop(tiny_lm, encoded, tmp_path, monkeypatch):
    plain = Stepper._one

    def tight(self, part, count):
        if len(part.rows) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, part, count)

    monkeypatch.setattr(Stepper, "_one", tight)
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    result = train_adapter(wrapped, Engine(lm.model, lm.structure), encoded, encoded, CONFIG, 0, tmp_path)
    assert result.micro_batch == 4
    (state,) = tmp_path.glob("step-*.json")
    assert json.loads(state.read_text())["rows"] == 4


def test_fp16_finds_a_scale_that_fits(tiny_lm, encoded):
    """The gradients are those of fp32, within rounding, and a scale that overflows is taken down without a lost step."""
    expected = gradients(stepper(tiny_lm(), encoded), encoded)[1]
    lm = tiny_lm()
    lm.model.half()
    made = stepper(lm, encoded)
    assert made.scale > 1
    made.scale = 64.0
    found = {n: g.float() / 64 for n, g in gradients(made, encoded)[1].items()}
    assert near(expected, found, 0.05)


@pytest.mark.parametrize("share", [True, False])
def test_training_in_fp16(share, tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    lm.model.half()
    config = CONFIG.model_copy(update={"epochs": 3, "batch_size": 8})
    wrapped = attach(lm.model, lm.structure, config, 0)
    engine = Engine(lm.model, lm.structure, share=share)
    result = train_adapter(wrapped, engine, encoded, encoded, config, 0, tmp_path)
    assert result.epochs[-1]["train_loss"] < result.epochs[0]["train_loss"] and not result.non_finite
    assert result.steps == len(result.epochs) * 6


def plant(lm, where):
    """Put an infinity somewhere in block 2. Returns what the explanation must name."""
    block = lm.structure.blocks[2]
    if where == "weight":
        with torch.no_grad():
            block.mlp.down_proj.weight[0, 0] = float("inf")
        return (
            r"the weight .*layers\.2\.mlp\.down_proj\.(base_layer\.)?weight, which is not finite itself",
            "load the model",
        )
    if where == "activation":
        block.mlp.register_forward_hook(lambda m, a, o: o + float("inf"))
        return r"the output of .*layers\.2\.mlp \(", "lower adapter.lr"
    if where == "mask":

        def hide(module, args, kwargs):
            mask = torch.full_like(kwargs["attention_mask"].float(), float("-inf"))
            return args, kwargs | {"attention_mask": mask}

        block.self_attn.register_forward_pre_hook(hide, with_kwargs=True)
        return r"the input of .*layers\.2\.self_attn\.o_proj, worked out in .*layers\.2\.self_attn", "lower adapter.lr"
    if where == "gradient":

        class Break(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                return grad * float("inf")

        block.mlp.register_forward_hook(lambda m, a, o: Break.apply(o))
        return r"the gradient .*layers\.2\.mlp", "lower adapter.lr"
    raise AssertionError(where)


@pytest.mark.parametrize("where", ["weight", "activation", "mask", "gradient"])
def test_what_is_not_finite_is_explained(where, tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    lm.model.set_attn_implementation("eager")
    # Passes that pad, so that transformers' own masks are used.
    engine = Engine(lm.model, lm.structure, share=False)
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    start = {n: p.detach().clone() for n, p in trainable(wrapped).items()}
    place, remedy = plant(lm, where)
    kind = "gradient" if where == "gradient" else "loss"
    match = rf"step 1: the {kind} of \d+ prompts is not finite \(first: prompt \w+ of capitals\); it began at {place}.* in float32; the adapter was left as it was: {remedy}"
    with pytest.raises(ModelError, match=match):
        train_adapter(wrapped, engine, encoded, encoded, CONFIG, 0, tmp_path)
    assert all(torch.equal(start[n], p) for n, p in trainable(wrapped).items())


def test_fp16_that_overflows_says_so(tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    lm.model.half()
    with torch.no_grad():
        lm.structure.blocks[2].mlp.down_proj.weight.mul_(3e4)
        lm.structure.blocks[2].mlp.up_proj.weight.mul_(50)
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    engine = Engine(lm.model, lm.structure, share=False)
    with pytest.raises(ModelError, match="in float16; .*fp16 ends at 65,504; use model.dtype=bf16"):
        train_adapter(wrapped, engine, encoded, encoded, CONFIG, 0, tmp_path)


def test_a_bad_batch_is_skipped_and_told(tiny_lm, encoded, tmp_path, capsys):
    """Only the prompts with one token are bad: their steps change nothing, the others are learned from."""
    rare = next(t for t in encoded.ids[0] if sum(t in ids for ids in encoded.ids) <= 6)
    config = CONFIG.model_copy(update={"on_nonfinite": "skip", "batch_size": 4, "micro_batch": 4})
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[rare, 0] = float("nan")
    select = encoded.subset([i for i, ids in enumerate(encoded.ids) if rare not in ids])
    wrapped = attach(lm.model, lm.structure, config, 0)
    engine = Engine(lm.model, lm.structure, share=False)
    result = train_adapter(wrapped, engine, encoded, select, config, 0, tmp_path)
    bad = {p.prompt_id for p, ids in zip(encoded.prompts, encoded.ids, strict=True) if rare in ids}
    assert result.non_finite and {i for event in result.non_finite for i in event["prompts"]} <= bad
    assert {i for event in result.non_finite for i in event["prompts"]} == bad
    assert all(p.isfinite().all() for p in trainable(wrapped).values())
    assert np.isfinite([e["train_loss"] for e in result.epochs]).all()
    assert capsys.readouterr().err.count("skipped: step") == len(result.non_finite)


def test_skipping_everything_stops(tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    plant(lm, "activation")
    config = CONFIG.model_copy(update={"on_nonfinite": "skip", "batch_size": 2, "micro_batch": 2})
    wrapped = attach(lm.model, lm.structure, config, 0)
    with pytest.raises(ModelError, match="10 steps in a row were not finite"):
        train_adapter(wrapped, Engine(lm.model, lm.structure, share=False), encoded, encoded, config, 0, tmp_path)


def test_exactly_so_many_steps(tiny_lm, encoded, tmp_path):
    for most in (1, 3, 9):
        folder = tmp_path / str(most)
        folder.mkdir()
        lm = tiny_lm()
        config = CONFIG.model_copy(update={"max_steps": most, "batch_size": 8, "early_stopping": False, "epochs": 1})
        wrapped = attach(lm.model, lm.structure, config, 0)
        result = train_adapter(wrapped, Engine(lm.model, lm.structure), encoded, encoded, config, 0, folder)
        assert result.steps == most and result.best_epoch == len(result.epochs) == -(-most // 8)


def test_processes_share_one_list_of_passes_whatever_memory_each_has(tiny_lm, encoded, monkeypatch):
    """One process that had to halve its passes still does its own prompts, all of them and no others."""
    from adapterprobe.adapters import distributed as processes

    made = stepper(tiny_lm(), encoded, CONFIG.model_copy(update={"micro_batch": 4}))
    batches = micro_batches(encoded, 4, np.random.default_rng(0))[:3]
    monkeypatch.setattr(processes, "count", lambda: 2)
    done = []
    for rank, rows in ((0, 4), (1, 1)):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        made.rows = rows
        done.append([row for part in made._mine(made._shared_out(batches)) for row in part.rows])
    assert not set(done[0]) & set(done[1])
    assert sorted(done[0] + done[1]) == sorted(row for batch in batches for row in batch.rows)
    # A single pass is cut, so that both have something to do.
    assert len(made._shared_out(batches[:1])) == 2


def test_a_bad_batch_leaves_the_scale_of_fp16_as_it_was(tiny_lm, encoded, tmp_path):
    from adapterprobe.adapters.train import _Training

    lm = tiny_lm()
    plant(lm, "weight")
    config = CONFIG.model_copy(update={"on_nonfinite": "skip"})
    wrapped = attach(lm.model, lm.structure, config, 0)
    training = _Training(
        wrapped, Engine(lm.model, lm.structure, share=False), encoded, encoded, config, 0, tmp_path, (), None
    )
    training.stepper.scale = 1024.0
    wrapped.train()
    training._step(training._steps(0)[0][0], 0, type("Bar", (), {"set_postfix": lambda *a, **k: None})())
    assert training.stepper.scale == 1024.0 and training.place.skipped == 1
