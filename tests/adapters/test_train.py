"""Adapters: off to the bit, on, trained, merged, resumed, loaded elsewhere."""

from collections import Counter

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from adapter_contract import asked_capitals, contract, logits
from adapterprobe.adapters import adapter_merged, adapter_off, attach, train_adapter
from adapterprobe.adapters.attach import target_names, trainable
from adapterprobe.adapters.batching import micro_batches, steps
from adapterprobe.adapters.checkpoint import drop_checkpoints
from adapterprobe.adapters.fused_lora import fused_lora
from adapterprobe.adapters.gradient_step import Stepper
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from conftest import SEVERAL

CONFIG = AdapterConfig(layers="1-3", rank=4, alpha=8, epochs=3, lr=0.01, batch_size=8, micro_batch=8, patience=9)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return asked_capitals(tokenizer)


def train(lm, encoded, folder, config=CONFIG, seed=0):
    wrapped = attach(lm.model, lm.structure, config, seed)
    engine = Engine(lm.model, lm.structure)
    return wrapped, train_adapter(wrapped, engine, encoded, encoded, config, seed, folder)


@SEVERAL
def test_contract(family, tiny_lm, encoded, tmp_path):
    contract(tiny_lm(family), tiny_lm(family), encoded, CONFIG, tmp_path, tolerance=1e-4, least=1e-2)


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]])
def test_tied_weights_are_never_merged(targets, tiny_lm, encoded):
    """A merged copy of an embedding that is the head too would change both."""
    lm = tiny_lm("llama")
    lm.model.lm_head.weight = lm.model.model.embed_tokens.weight
    before = logits(lm, encoded)
    get_peft_model(lm.model, LoraConfig(target_modules=targets, r=4, init_lora_weights=False)).eval()
    on = logits(lm, encoded)
    assert (on - before).abs().max() > 1e-2
    with adapter_merged(lm.model):
        assert (logits(lm, encoded) - on).abs().max() < 1e-4 * on.abs().max()
    with adapter_off(lm.model):
        assert torch.equal(logits(lm, encoded), before)


def test_a_loss_on_select_that_is_not_finite_is_said(tiny_lm, encoded, tmp_path, monkeypatch):
    from adapterprobe.adapters import train as module

    monkeypatch.setattr(module, "measure", lambda *a: {"loss": float("nan"), "accuracy": 0.0, "coverage": 0.0})
    with pytest.raises(ModelError, match="after epoch 1 the loss on select is not finite"):
        train(tiny_lm(), encoded, tmp_path)


def test_only_the_chosen_layers(tiny_lm):
    lm = tiny_lm("llama")
    parts = lm.model, lm.structure
    assert {n.split(".")[2] for n in target_names(*parts, AdapterConfig(layers="last:2"))} == {"2", "3"}
    assert target_names(*parts, AdapterConfig(layers="0", modules=["q_proj"])) == ["model.layers.0.self_attn.q_proj"]
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        target_names(*parts, AdapterConfig(modules=["q_prj"]))
    with pytest.raises(ConfigError, match="from 0 to 3"):
        target_names(*parts, AdapterConfig(layers="2-9"))


def test_stopped_training_ends_the_same(tiny_lm, encoded, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    wrapped, whole = train(tiny_lm(), encoded, tmp_path / "a")
    from adapterprobe.adapters import train as module

    calls = []

    def stop(*args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return measure(*args, **kwargs)

    measure = module.measure
    (tmp_path / "b").mkdir()
    monkeypatch.setattr(module, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_lm(), encoded, tmp_path / "b")
    assert list((tmp_path / "b").glob("step-*"))
    monkeypatch.setattr(module, "measure", measure)
    again, resumed = train(tiny_lm(), encoded, tmp_path / "b")
    assert resumed.epochs == whole.epochs
    for (name, one), two in zip(trainable(wrapped).items(), trainable(again).values(), strict=True):
        assert torch.equal(one, two), name
    drop_checkpoints(tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize(
    "changes", [*({"kind": kind} for kind in ("lora", "adalora", "pissa", "linear")), {"group_dro": 0.3}], ids=str
)
def test_stopped_inside_an_epoch_ends_the_same(changes, tiny_lm, encoded, tmp_path, monkeypatch):
    """Also where a training has more of a state than its weights."""
    from adapterprobe.adapters import train as module

    config = CONFIG.model_copy(update=changes)
    for name in "ab":
        (tmp_path / name).mkdir()
    wrapped, whole = train(tiny_lm(), encoded, tmp_path / "a", config)
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    lm = tiny_lm()
    taken = []
    gradients = Stepper.gradients

    def stop(*args):
        if len(taken) == 6:
            raise KeyboardInterrupt
        taken.append(1)
        return gradients(*args)

    monkeypatch.setattr(Stepper, "gradients", stop)
    with pytest.raises(KeyboardInterrupt):
        train(lm, encoded, tmp_path / "b", config)
    taken.clear()
    monkeypatch.setattr(Stepper, "gradients", lambda *args: taken.append(1) or gradients(*args))
    again, resumed = train(tiny_lm(), encoded, tmp_path / "b", config)
    assert resumed.epochs == whole.epochs
    per_epoch = len(steps(micro_batches(encoded, 8, np.random.default_rng(0)), 8))
    assert per_epoch > 3 and len(taken) == 3 * per_epoch - 6, "no finished step is taken again"
    for (name, one), two in zip(trainable(wrapped).items(), trainable(again).values(), strict=True):
        assert torch.equal(one, two), name


def test_a_torn_checkpoint_starts_afresh(tiny_lm, encoded, tmp_path):
    (tmp_path / "latest").write_text("step-000001-0")
    (tmp_path / "step-000001-0.safetensors").write_bytes(b"torn")
    _, result = train(tiny_lm(), encoded, tmp_path)
    assert len(result.epochs) == 3


def test_early_stopping_keeps_the_best(tiny_lm, encoded, tmp_path, monkeypatch):
    """Losses on select are made up: the second epoch is the best, so the third is the last."""
    from adapterprobe.adapters import train as module

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lm = tiny_lm()
    after = []

    def measure(*args):
        after.append({n: p.detach().clone() for n, p in lm.model.named_parameters() if "lora" in n})
        return {"loss": [0.9, 0.5, 0.7][len(after) - 1], "accuracy": 0.5, "coverage": 0.5}

    monkeypatch.setattr(module, "measure", measure)
    _, result = train(lm, encoded, tmp_path / "a", CONFIG.model_copy(update={"epochs": 8, "patience": 1}))
    assert result.best_epoch == 2 and result.stopped_early and len(result.epochs) == 3
    now = dict(lm.model.named_parameters())
    assert all(torch.equal(now[name], kept) for name, kept in after[1].items())
    assert not all(torch.equal(now[name], kept) for name, kept in after[2].items())


def test_seed_decides(tiny_lm, encoded, tmp_path):
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        runs.append(train(tiny_lm(), encoded, tmp_path / name, seed=seed)[1].epochs)
    assert runs[0] == runs[1] != runs[2]


def test_micro_batches_hold_every_prompt_once(encoded):
    for size in (1, 5, 64):
        batches = micro_batches(encoded, size, np.random.default_rng(0))
        assert sorted(row for batch in batches for row in batch.rows) == list(range(len(encoded)))
        for batch in batches:
            assert len(batch.rows) <= size
            assert batch.sequences == [encoded.ids[row] for row in batch.rows]


def test_both_versions_of_a_fact_are_learned_from_together(encoded):
    for size in (4, 8):
        for batch in micro_batches(encoded, size, np.random.default_rng(1)):
            seen = Counter((encoded.prompts[r].example.group, encoded.prompts[r].condition) for r in batch.rows)
            assert set(seen.values()) == {2}


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_fused_lora_has_pefts_values_and_gradients(family, tiny_lm, encoded):
    """With biases (phi) and without; anything but plain LoRA is left to PEFT."""
    lm = tiny_lm(family)
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    torch.manual_seed(0)
    for parameter in trainable(wrapped).values():
        torch.nn.init.normal_(parameter, std=0.1)
    engine = Engine(lm.model, lm.structure)
    (batch,) = engine.plan(encoded.ids[:6])

    def go():
        logits = engine.run(batch, states=False).logits
        logits.logsumexp(1).sum().backward()
        found = [logits.detach()] + [p.grad.clone() for p in trainable(wrapped).values()]
        wrapped.zero_grad()
        return found

    expected = go()
    with fused_lora(wrapped) as count:
        assert count == len(trainable(wrapped)) / 2
        got = go()
        with adapter_off(wrapped), torch.no_grad():
            off = engine.run(batch, states=False).logits
    for one, two in zip(expected, got, strict=True):
        assert (one - two).abs().max() <= 1e-4 * one.abs().max()
    with adapter_off(wrapped), torch.no_grad():
        assert torch.equal(off, engine.run(batch, states=False).logits)
    assert (off - expected[0]).abs().max() > 1e-3


def test_lora_that_is_not_plain_is_left_alone(tiny_lm):
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, CONFIG.model_copy(update={"dropout": 0.1}), 0)
    with fused_lora(wrapped) as count:
        assert count == 0
