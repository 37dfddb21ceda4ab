"""Objective `detect`: a linear head on a middle layer, trained together with the adapter below it."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError

from adapterprobe.activations.in_memory import states_in_memory
from adapterprobe.adapters import adapter_off, attach, train_adapter
from adapterprobe.adapters.adapter_folder import adapter_digest, adapter_loaded, base_model_record, save_adapter
from adapterprobe.adapters.attach import detach, trainable
from adapterprobe.adapters.batch_losses import batch_losses
from adapterprobe.adapters.detect_head import (
    HEAD,
    adapted_blocks,
    attach_head,
    detach_head,
    head_layer,
    head_of,
    head_spans,
    load_head,
)
from adapterprobe.adapters.objectives import make_targets
from adapterprobe.config import AdapterConfig, RunConfig
from adapterprobe.data import load_relation
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.encoded import encode
from adapterprobe.readout import TokenReads
from conftest import SEVERAL

CONFIG = AdapterConfig(
    objective="detect", layers="0-1", head_layer=3, rank=4, alpha=8, epochs=4, lr=0.01, head_lr=0.05, patience=9,
    kl_text_weight=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tokenizer):
    relation = load_relation("capitals")
    examples = relation.examples(relation.groups[:24], "question", 0)
    demos = draw_demo_sets(examples[:8], 2, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples[8:], "x", ["truth"], templates_for(relation, "question"), demos, "plain", 0)
    return encode(tokenizer, prompts, None)


def with_spans(encoded, pool="mean"):
    """Read at tokens in the middle, of another number in each row."""
    spans = tuple((len(ids) - 5 - row % 3, len(ids) - 2) for row, ids in enumerate(encoded.ids))
    return type(encoded)(encoded.prompts, encoded.ids, encoded.choices, spans, (TokenReads(spans, pool),))


@SEVERAL
@pytest.mark.parametrize("logits", [False, True])
def test_states_at_tokens_are_transformers_own(family, logits, tiny_lm, encoded):
    lm = tiny_lm(family)
    engine, some = Engine(lm.model, lm.structure), with_spans(encoded).subset(range(6))
    spans, found = head_spans(some), {}
    for batch in engine.plan(some.ids):
        with engine.reading_tokens(batch, [0, 1, 3], spans, logits) as (states, said):
            assert set(states) == {0, 1, 3}
            lengths = [spans[row][1] - spans[row][0] for row in batch.rows]
            parts, below = states[3].split(lengths), states[0].split(lengths)
            for place, row in enumerate(batch.rows):
                found[row] = parts[place], None if said is None else said[place], below[place]
    for row, ids in enumerate(some.ids):
        plain = lm.model(torch.tensor([ids]), output_hidden_states=True)
        expected = plain.hidden_states[3][0, slice(*spans[row])]
        assert (found[row][2] - plain.hidden_states[0][0, slice(*spans[row])]).abs().max() < 1e-5
        assert (found[row][0] - expected).abs().max() < 1e-4 * expected.abs().max()
        if logits:
            assert (found[row][1] - plain.logits[0, -1]).abs().max() < 1e-3
        else:
            assert found[row][1] is None


@pytest.mark.parametrize("pool", ["mean", "last", "first"])
def test_gradients_are_those_of_the_loss_by_hand(pool, tiny_lm, encoded):
    """Cross-entropy of every token's logit against its row's label, each row counted once."""
    lm = tiny_lm("llama")
    some = with_spans(encoded, pool).subset(range(6))
    engine = Engine(lm.model, lm.structure)
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    head = attach_head(wrapped, engine, some, CONFIG)
    with torch.no_grad():
        for parameter in trainable(wrapped).values():
            parameter.normal_(std=0.1)
    targets = make_targets(CONFIG, some.prompts)
    gradients = []
    for batch in engine.plan(some.ids):
        with batch_losses(engine, batch, some, targets, CONFIG, head) as found:
            found.losses.sum().backward()
    gradients = {name: p.grad.clone() for name, p in trainable(wrapped).items()}
    wrapped.zero_grad()
    for prompt, ids, (start, stop) in zip(some.prompts, some.ids, some.reads[0].spans, strict=True):
        states = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0, start:stop]
        states = {"mean": states, "last": states[-1:], "first": states[:1]}[pool]
        logits = ((states - head.mean) / head.scale) @ head.weight + head.bias
        label = torch.full_like(logits, float(prompt.example.truth))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label).backward()
    for name, parameter in trainable(wrapped).items():
        assert (gradients[name] - parameter.grad).abs().max() < 1e-4 * parameter.grad.abs().max() + 1e-7, name
    assert {"detect_head.weight", "detect_head.bias"} < set(gradients) and all(g.any() for g in gradients.values())


@pytest.mark.parametrize("kind", ["lora", "ia3", "bias", "linear", "adalora"])
def test_trained_saved_and_loaded(kind, tiny_lm, encoded, tmp_path):
    """What the head tells in training it tells afterwards, of states recorded with the saved adapter on."""
    lm = tiny_lm("qwen2")
    some = with_spans(encoded)
    engine = Engine(lm.model, lm.structure)
    before = lm.model(torch.tensor([some.ids[0]])).logits
    config = CONFIG.model_copy(update={"kind": kind, "epochs": 12})
    model = base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, config, 0)
    attach_head(wrapped, engine, some, config)
    start = {name: tensor.clone() for name, tensor in trainable(wrapped).items()}
    result = train_adapter(wrapped, engine, some, some, config, 0, tmp_path)
    losses = [epoch["loss"] for epoch in result.epochs]
    # Zero weights know nothing: log 2.
    assert min(losses) < 0.66 and result.epochs[-1]["accuracy"] > 0.6
    moved = {name for name, tensor in trainable(wrapped).items() if (tensor != start[name]).any()}
    assert {"detect_head.weight", "detect_head.bias"} < moved, "the adapter learns with its head"
    with adapter_off(wrapped):
        assert torch.equal(lm.model(torch.tensor([some.ids[0]])).logits, before)
    head = head_of(wrapped)
    told = {}
    for batch in engine.plan(some.ids):
        with torch.no_grad(), engine.reading_tokens(batch, [head.layer], head_spans(some)) as (states, _):
            parts = states[head.layer].split(
                [some.reads[0].spans[row][1] - some.reads[0].spans[row][0] for row in batch.rows]
            )
            told |= {row: float(head(part).mean()) for row, part in zip(batch.rows, parts, strict=True)}
    save_adapter(wrapped, model, tmp_path / "adapter", detach_head(wrapped))
    detach(wrapped)
    saved = load_head(tmp_path / "adapter")
    with adapter_loaded(lm, tmp_path / "adapter"):
        states = states_in_memory(engine, some, [saved.layer], "states").layer(saved.layer)
    probability = saved.probability(states)
    assert np.allclose(np.log(probability / (1 - probability)), [told[row] for row in range(len(some))], atol=2e-3)
    if kind != "linear":
        PeftModel.from_pretrained(lm.model, tmp_path / "adapter").unload()
    digest = adapter_digest(tmp_path / "adapter")
    (tmp_path / "adapter" / HEAD).write_bytes(b"other")
    with pytest.raises(ModelError, match=r"head\.safetensors"), adapter_loaded(lm, tmp_path / "adapter"):
        pass
    with pytest.raises(ModelError, match="cannot be read"):
        load_head(tmp_path / "adapter")
    assert adapter_digest(tmp_path / "adapter") != digest


def test_stopped_training_ends_the_same(tiny_lm, encoded, tmp_path, monkeypatch):
    some, found = with_spans(encoded), []

    def go(folder):
        folder.mkdir(exist_ok=True)
        lm = tiny_lm("llama")
        engine = Engine(lm.model, lm.structure)
        wrapped = attach(lm.model, lm.structure, CONFIG, 0)
        attach_head(wrapped, engine, some, CONFIG)
        train_adapter(wrapped, engine, some, some, CONFIG, 0, folder)
        return {name: tensor.clone() for name, tensor in trainable(wrapped).items()}

    whole = go(tmp_path / "whole")
    from adapterprobe.adapters import train

    real = train.measure

    def stop(*args, **kwargs):
        if len(found) == 2:
            raise KeyboardInterrupt
        found.append(1)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "stopped")
    again = go(tmp_path / "stopped")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_is_adapted_lies_below_the_head():
    assert head_layer(AdapterConfig(objective="detect"), 30) == 15 and head_layer(AdapterConfig(), 30) is None
    assert adapted_blocks(AdapterConfig(objective="detect"), 5) == [0, 1, 2]
    assert adapted_blocks(AdapterConfig(objective="detect", layers="33%-83%"), 30) == [10, 11, 12, 13, 14]
    assert AdapterConfig(objective="detect").kl_text_weight == 1.0 and AdapterConfig().kl_text_weight == 0.0
    with pytest.raises(ConfigError, match="adapts block 3, which the head at state 2 does not see"):
        adapted_blocks(AdapterConfig(objective="detect", layers="last:1"), 4)
    with pytest.raises(ConfigError, match=r"adapter.head_layer=4: .* 1 to 3"):
        head_layer(AdapterConfig(objective="detect", head_layer=4), 4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": {"head_layer": 3}}, "for objective=detect"),
        ({"adapter": {"objective": "detect", "targets": "soft"}}, "objectives about answers"),
        (
            {"adapter": {"objective": "detect"}, "read": {"what": "reply", "pool": "max"}},
            "read.pool to one of mean, last, first",
        ),
    ],
)
def test_settings_that_do_not_go_together(changes, told):
    with pytest.raises(ValidationError, match=told):
        RunConfig.model_validate(changes)
