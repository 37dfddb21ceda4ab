"""The real default model: it loads from its package, the engine is right on it, and it knows more than it says."""

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
