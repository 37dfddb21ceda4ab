"""The real default model: it loads from its package, the engine is right on it, and it knows more than it says."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from adapterprobe import probes
from adapterprobe.activations import record
from adapterprobe.adapters import adapter_merged, adapter_off, attach
from adapterprobe.adapters.attach import detach, trainable
from adapterprobe.config import AdapterConfig
from adapterprobe.data import load_relation, relation_names
from adapterprobe.engine import Engine
from adapterprobe.models import load_model
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.answer_tokens import ChoiceFinder
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.followups import follow_ups
from adapterprobe.prompts.read_prompts import read_prompts, token_spans
from adapterprobe.readout import ReadoutConfig, TokenReads
from adapterprobe.types import Conversation, Example, Message

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def lm():
    return load_model()


def prompts(count: int, conditions=("truth",), templates=("ask",)):
    relation = load_relation("capitals")
    groups = [relation.groups[i] for i in np.random.default_rng(0).permutation(len(relation.groups))]
    demos = draw_demo_sets(relation.examples(groups[:8], "question", 0), 4, 1, "demos", np.random.default_rng(0))
    examples = relation.examples(groups[8 : 8 + count], "question", 0)
    return make_prompts(
        examples, "x", list(conditions), templates_for(relation, "question", list(templates)), demos, "plain", 0
    )


def test_it_knows_more_than_it_says(lm):
    encoded = encode(lm.tokenizer, prompts(150), lm.context_length, lm.vocabulary)
    states = record(Engine(lm.model, lm.structure), encoded, lm.fingerprint, [18])
    truth = np.array([int(p.example.truth) for p in encoded.prompts])
    groups = np.unique([p.example.group for p in encoded.prompts], return_inverse=True)[1]
    held = groups >= 90
    said = states.logprobs[:, 0] - states.logprobs[:, 1]
    assert abs(roc_auc_score(truth[held], said[held]) - 0.5) < 0.15
    assert np.exp(states.logprobs).sum(1).mean() > 0.8
    probe = probes.make("logistic").fit(states.layer(18)[~held], truth[~held])
    assert roc_auc_score(truth[held], probe.decision_function(states.layer(18)[held])) > 0.78


def test_engine_equals_plain_forward_in_fp32():
    lm = load_model(dtype="fp32")
    encoded = encode(lm.tokenizer, prompts(5, ("truth", "lie")), lm.context_length, lm.vocabulary)
    engine = Engine(lm.model, lm.structure)
    assert engine.share
    with torch.no_grad():
        for batch in engine.plan(encoded.ids):
            assert any(group.prefix for group in batch.groups)
            out = engine.run(batch)
            for place, row in enumerate(batch.rows):
                plain = lm.model(torch.tensor([encoded.ids[row]]), output_hidden_states=True)
                assert (out.logits[place] - plain.logits[0, -1]).abs().max() <= 1e-3 * plain.logits[0, -1].abs().max()
                for layer in range(30):
                    expected = plain.hidden_states[layer][0, -1]
                    assert (out.states[layer, place] - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_adapter_off_to_the_bit_in_its_own_dtype(lm):
    encoded = encode(lm.tokenizer, prompts(3), lm.context_length, lm.vocabulary)
    engine = Engine(lm.model, lm.structure)

    @torch.no_grad()
    def logits():
        return torch.cat([engine.run(b, states=False).logits for b in engine.plan(encoded.ids)])

    before = logits()
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="last:4", rank=4), 0)
    for parameter in trainable(wrapped).values():
        torch.nn.init.normal_(parameter, std=0.05)
    on = logits()
    assert not torch.equal(on, before)
    with adapter_off(lm.model):
        assert torch.equal(logits(), before)
    with adapter_merged(lm.model):
        merged = logits()
    # Merging rounds to bf16 once more; the adapter's effect must stand far above that.
    assert (merged - on).float().abs().mean() < 0.2 * (on - before).float().abs().mean()
    detach(wrapped)
    assert torch.equal(logits(), before)


def test_choices_of_all_facts_begin_differently(lm):
    finder = ChoiceFinder(lm.tokenizer, special=True)
    for context in ("Answer:", "<|im_start|>assistant\n"):
        finder("x", context, "Yes", "No")
        finder("x", context, "True", "False")
    numeric = {"additions", "multiplications", "comparisons", "atomic_numbers", "roman_numerals"}
    articles = {"a", "an", "the", "more"}
    for name in set(relation_names()) - numeric:
        for fact in load_relation(name).facts:
            if fact.object.split()[0] in articles:
                continue  # "a bird" and "a fish" begin alike: refused by name in recall form
            right = set(finder.starters("Answer:", fact.object))
            assert right, (name, fact.object)
            apart = [w for w in fact.wrong if not right & set(finder.starters("Answer:", w))]
            assert apart, f"{name}, {fact.subject}: in recall form every wrong object begins like '{fact.object}'"


def test_replies_are_pooled_as_by_hand(tmp_path, monkeypatch):
    """In fp32, adapter off and on: every pooling of a reply is that of transformers' own hidden states."""
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path))
    lm = load_model(dtype="fp32")
    system = Message("system", "You sell used cars.")
    talks = [
        Conversation((system, Message("user", f"Is the {name} any good?")), f"The {name} is as good as new, I promise.")
        for name in ("red one", "small blue van in the corner", "bus")
    ]
    examples = [
        Example(f"e{i}", "d", f"g{i}", "reply", "Yes", "No", True, {"dialogue": t.script, "reply": t.reply}, i, t)
        for i, t in enumerate(talks)
    ]
    readout = ReadoutConfig(what="reply")
    made = read_prompts(examples, "test", readout, None, lm.tokenizer, follow_ups("reply", role="judge"))
    encoded = encode(lm.tokenizer, made, lm.context_length, lm.vocabulary)
    spans = token_spans(encoded, readout, lm.tokenizer)
    assert [lm.tokenizer.decode(ids[a:b]) for ids, (a, b) in zip(encoded.ids, spans, strict=True)] == [
        t.reply for t in talks
    ]
    pools = ("mean", "last", "first", "max", "rolling:4")
    encoded = replace(encoded, reads=tuple(TokenReads(spans, pool) for pool in pools))
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="last:10", rank=4), 0, lm.original)
    try:
        for name, parameter in trainable(wrapped).items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        for on in (False, True):
            with contextlib.nullcontext() if on else adapter_off(lm.model):
                found = record(Engine(lm.model, lm.structure), encoded, f"w{on}", [1, 15, 29])
                for row, (ids, (start, stop)) in enumerate(zip(encoded.ids, spans, strict=True)):
                    with torch.no_grad():
                        hidden = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
                    for layer in (1, 15, 29):
                        tokens = hidden[layer][0, start:stop].numpy()
                        windows = np.stack([tokens[i : i + 4].mean(0) for i in range(len(tokens) - 3)])
                        expected = (tokens.mean(0), tokens[-1], tokens[0], tokens.max(0), windows.max(0))
                        for which, wanted in enumerate(expected):
                            got = found.read(which).layer(layer)[row]
                            assert np.abs(got - wanted).max() < 1e-4 * np.abs(tokens).max(), (on, layer, pools[which])
    finally:
        detach(wrapped)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_it_loads_with_few_bits(bits):
    """Its first token's states are so large that 8-bit products of other tokens hang on them, and on later ones: no look ahead of its own."""
    few = load_model(quantize=bits)
    bounds = {
        module.state.threshold for module in few.model.modules() if hasattr(getattr(module, "state", None), "threshold")
    }
    assert bounds == ({6.0} if bits == "8bit" else set()), "as it was before the check"
    with torch.no_grad():
        ids = torch.tensor([few.tokenizer("The capital of France is").input_ids])
        assert few.tokenizer.decode(few.model(ids).logits[0, -1].argmax()) == " Paris"
