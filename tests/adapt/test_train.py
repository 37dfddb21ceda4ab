"""Adapters: off to the bit, on, trained, merged, resumed, loaded elsewhere."""

import numpy as np
import pytest
import torch
from peft import PeftModel

from adapterprobe.adapt import adapter_merged, adapter_off, attach, train_adapter
from adapterprobe.adapt.attach import detach, target_names, trainable
from adapterprobe.adapt.objectives import choice_loss
from adapterprobe.adapt.train import micro_batches
from adapterprobe.config import AdapterConfig
from adapterprobe.data import load_relation
from adapterprobe.data.examples import make_examples
from adapterprobe.elicit import draw_demo_sets, make_prompts, templates_for
from adapterprobe.engine import Engine, plan_batches
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models.encode import encode
from conftest import SEVERAL

CONFIG = AdapterConfig(layers="1-3", rank=4, alpha=8, epochs=3, lr=0.01, batch_size=8, micro_batch=8, patience=9)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    relation = load_relation("capitals")
    examples = make_examples(relation, relation.groups[:16], "question", 0)
    demos = draw_demo_sets(examples[:8], 2, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples[8:], "x", ["truth", "lie"], templates_for("question"), demos, "plain", 0)
    return encode(tokenizer, prompts, None)


def logits(lm, encoded):
    engine = Engine(lm.model, lm.structure)
    with torch.no_grad():
        return torch.cat([engine.run(b, states=False).logits for b in plan_batches(encoded.ids)])


def train(lm, encoded, folder, config=CONFIG, seed=0):
    wrapped = attach(lm.model, lm.structure, config, seed)
    engine = Engine(lm.model, lm.structure)
    return wrapped, train_adapter(wrapped, engine, encoded, encoded, config, seed, folder)


@SEVERAL
def test_contract(family, tiny_lm, encoded, tmp_path):
    lm = tiny_lm(family)
    before = logits(lm, encoded)
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    start = {n: p.detach().clone() for n, p in trainable(wrapped).items()}
    with adapter_off(lm.model):
        assert torch.equal(before, logits(lm, encoded)), "off before training"
    result = train_adapter(wrapped, Engine(lm.model, lm.structure), encoded, encoded, CONFIG, 0, tmp_path)
    assert result.epochs[-1]["train_loss"] < result.epochs[0]["train_loss"]
    assert result.parameters == sum(p.numel() for p in start.values())
    assert all(not torch.equal(start[n], p) for n, p in trainable(wrapped).items()), "every tensor moved"
    with adapter_off(lm.model):
        assert torch.equal(before, logits(lm, encoded)), "off after training"
    on = logits(lm, encoded)
    assert (on - before).abs().max() > 1e-2
    with adapter_merged(lm.model):
        merged = logits(lm, encoded)
    assert (merged - on).abs().max() < 1e-4 * on.abs().max()
    assert torch.equal(on, logits(lm, encoded)), "leaving the merged state changes nothing"
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    detach(wrapped)
    assert torch.equal(before, logits(lm, encoded)), "detached"
    fresh = tiny_lm(family)
    PeftModel.from_pretrained(fresh.model, str(tmp_path / "adapter"))
    assert (logits(fresh, encoded) - on).abs().max() < 1e-5 * on.abs().max()


def test_only_the_chosen_layers(tiny_lm):
    structure = tiny_lm("llama").structure
    assert {n.split(".")[2] for n in target_names(structure, "last:2", "all")} == {"2", "3"}
    assert target_names(structure, "0", ["q_proj"]) == ["model.layers.0.self_attn.q_proj"]
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        target_names(structure, "all", ["q_prj"])
    with pytest.raises(ConfigError, match="from 0 to 3"):
        target_names(structure, "2-9", "all")


def test_stopped_training_ends_the_same(tiny_lm, encoded, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    wrapped, whole = train(tiny_lm(), encoded, tmp_path / "a")
    from adapterprobe.adapt import train as module

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
    assert list((tmp_path / "b").glob("epoch-*"))
    monkeypatch.setattr(module, "measure", measure)
    again, resumed = train(tiny_lm(), encoded, tmp_path / "b")
    assert resumed.epochs == whole.epochs
    for (name, one), two in zip(trainable(wrapped).items(), trainable(again).values()):
        assert torch.equal(one, two), name
    assert not list((tmp_path / "b").iterdir()), "checkpoints are gone when training is done"


def test_a_torn_checkpoint_starts_afresh(tiny_lm, encoded, tmp_path):
    (tmp_path / "latest").write_text("epoch-0001")
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"torn")
    _, result = train(tiny_lm(), encoded, tmp_path)
    assert len(result.epochs) == 3


def test_early_stopping_keeps_the_best(tiny_lm, encoded, tmp_path):
    config = CONFIG.model_copy(update={"lr": 0.5, "epochs": 8, "patience": 1})
    _, result = train(tiny_lm(), encoded, tmp_path, config)
    losses = [e["loss"] for e in result.epochs]
    assert result.best_epoch == losses.index(min(losses)) + 1
    assert result.stopped_early and len(losses) < 8


def test_seed_decides(tiny_lm, encoded, tmp_path):
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        runs.append(train(tiny_lm(), encoded, tmp_path / name, seed=seed)[1].epochs)
    assert runs[0] == runs[1] != runs[2]


def test_non_finite_loss_is_explained(tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[encoded.ids[0][3]] = float("inf")
    engine = Engine(lm.model, lm.structure, share=False)
    start = {n: p.detach().clone() for n, p in trainable(wrapped).items()}
    with pytest.raises(ModelError, match=r"loss of \d+ prompts is not finite \(first: prompt [0-9a-f]+ of capitals\)"):
        train_adapter(wrapped, engine, encoded, encoded, CONFIG, 0, tmp_path)
    assert all(torch.equal(start[n], p) for n, p in trainable(wrapped).items())


def test_micro_batches_hold_every_prompt_once(encoded):
    for size in (1, 5, 64):
        rows = [r for passes in micro_batches(encoded, size, np.random.default_rng(0)) for b in passes for r in b.rows]
        assert sorted(rows) == list(range(len(encoded)))
        for passes in micro_batches(encoded, size, np.random.default_rng(0)):
            assert sum(len(b.rows) for b in passes) <= size
            for batch in passes:
                for owner, row, suffix in zip(batch.owners, batch.rows, batch.suffixes):
                    assert (batch.prefixes[owner] if batch.prefixes else ()) + suffix == encoded.ids[row]


def test_choice_loss_row_by_row():
    logprobs = torch.log(torch.tensor([[0.6, 0.1], [0.2, 0.7]]))
    expected = -torch.log(torch.tensor([0.6, 0.7]))
    assert torch.allclose(choice_loss(logprobs, torch.tensor([True, False])), expected)
