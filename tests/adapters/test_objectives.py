"""Each loss against its closed form, row by row; what every objective asks for; that each is met by training."""

import math

import numpy as np
import pytest
import torch

from adapter_contract import asked_capitals
from adapterprobe.adapters import attach, train_adapter
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.neutral_text_drift import drift, encode_paragraphs, neutral_paragraphs, text_divergence
from adapterprobe.adapters.objectives import (
    OBJECTIVES,
    Targets,
    choice_loss,
    make_targets,
    needs_base,
    rest_divergence,
    row_losses,
    soft_loss,
    unlikelihood,
)
from adapterprobe.adapters.on_off import adapter_off
from adapterprobe.adapters.train import targets_of
from adapterprobe.config import AdapterConfig
from adapterprobe.data import load_relation
from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs, rest_logprobs
from adapterprobe.engine.outcomes import answer_logprobs
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.answer_tokens import ChoiceTokens

CONFIG = AdapterConfig(layers="all", rank=4, alpha=8, epochs=16, lr=0.02, batch_size=8, patience=99)
CHOICES = [ChoiceTokens((0, 1), (2,)), ChoiceTokens((3,), (0, 4))]
LOGITS = torch.tensor([[1.0, 0.5, -1.0, 2.0, 0.0, 0.3], [0.2, -0.4, 3.0, 1.5, -2.0, 0.7]])


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return asked_capitals(tokenizer, 14)


def probabilities(row):
    p = np.exp(LOGITS[row].numpy().astype(float))
    return p / p.sum()


def outcomes_by_hand(row):
    p, c = probabilities(row), CHOICES[row]
    positive, negative = p[list(c.positive)].sum(), p[list(c.negative)].sum()
    return np.array([positive, negative, 1 - positive - negative])


def test_outcomes_sum_their_tokens():
    both, rest = choice_logprobs(LOGITS, CHOICES).exp(), rest_logprobs(LOGITS, CHOICES).exp()
    for row in range(2):
        assert np.allclose([*both[row], rest[row]], outcomes_by_hand(row), atol=1e-6)


def test_hard_targets_are_cross_entropy_over_the_whole_vocabulary():
    losses, _ = row_losses(LOGITS, CHOICES, Targets(torch.tensor([True, False])), CONFIG)
    expected = [-math.log(outcomes_by_hand(0)[0]), -math.log(outcomes_by_hand(1)[1])]
    assert np.allclose(losses, expected, atol=1e-6)
    logprobs = torch.log(torch.tensor([[0.6, 0.1], [0.2, 0.7]]))
    assert torch.allclose(choice_loss(logprobs, torch.tensor([True, False])), -torch.log(torch.tensor([0.6, 0.7])))


def test_soft_targets_are_kl_over_three_outcomes():
    soft = torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.9, 0.1]])
    losses, _ = row_losses(LOGITS, CHOICES, Targets(torch.tensor([True, False]), soft), CONFIG)
    for row in range(2):
        t, q = soft[row].numpy().astype(float), outcomes_by_hand(row)
        assert np.isclose(
            float(losses[row]), sum(a * math.log(a / b) for a, b in zip(t, q, strict=True) if a), atol=1e-6
        )
    own = torch.log(torch.tensor(np.array([outcomes_by_hand(0), outcomes_by_hand(1)]))).float()
    assert torch.allclose(soft_loss(own, own.exp()), torch.zeros(2), atol=1e-6)


def test_unlikelihood_is_of_the_choice_that_is_not_wanted():
    config = CONFIG.model_copy(update={"unlikelihood": 0.5})
    wanted = torch.tensor([True, False])
    plain, _ = row_losses(LOGITS, CHOICES, Targets(wanted), CONFIG)
    losses, _ = row_losses(LOGITS, CHOICES, Targets(wanted), config)
    expected = [-math.log(1 - outcomes_by_hand(0)[1]), -math.log(1 - outcomes_by_hand(1)[0])]
    assert np.allclose((losses - plain) / 0.5, expected, atol=1e-5)


def test_the_rest_of_the_vocabulary():
    other = LOGITS.flip(0) * 0.7
    found = rest_divergence(LOGITS, other, CHOICES)
    for row in range(2):
        rest = [i for i in range(6) if i not in (*CHOICES[row].positive, *CHOICES[row].negative)]
        p, q = probabilities(row)[rest], np.exp(other[row].numpy().astype(float))[rest]
        p, q = p / p.sum(), q / q.sum()
        assert np.isclose(float(found[row]), (p * np.log(p / q)).sum(), atol=1e-6)
    moved = LOGITS.clone()
    for row, choice in enumerate(CHOICES):
        moved[row, list(choice.positive)] += 3
    assert torch.allclose(rest_divergence(LOGITS, moved, CHOICES), torch.zeros(2), atol=1e-6)


def test_losses_and_gradients_are_finite_for_any_logits():
    config = CONFIG.model_copy(update={"unlikelihood": 1.0})
    for scale in (1e4, -1e4, 3e38):
        logits = torch.zeros(2, 6)
        logits[:, 0] = scale
        logits.requires_grad_()
        for soft in (None, torch.tensor([[0.4, 0.4, 0.2]] * 2)):
            losses, _ = row_losses(logits, CHOICES, Targets(torch.tensor([True, False]), soft), config)
            whole = losses.sum() + rest_divergence(torch.zeros(2, 6), logits, CHOICES).sum()
            if abs(scale) < 1e38:
                assert whole.isfinite()
            (grad,) = torch.autograd.grad(whole, logits)
            assert grad.isfinite().all()
    assert unlikelihood(torch.tensor([[-100.0, -1e-9, -50.0]]), torch.tensor([True])).isfinite().all()


def test_what_each_objective_wants(encoded):
    truth = torch.tensor([p.example.truth for p in encoded.prompts])
    lying = torch.tensor([p.condition == "lie" for p in encoded.prompts])
    base = torch.log_softmax(torch.randn(len(encoded), 3, generator=torch.Generator().manual_seed(0)), 1)
    says = base[:, 0] > base[:, 1]
    expected = {"truth": truth, "lie": ~truth, "instructed": truth ^ lying, "opposite": ~says, "detect": truth}
    assert set(expected) == set(OBJECTIVES)
    for name, wanted in expected.items():
        for targets in ("hard", "soft"):
            config = CONFIG.model_copy(update={"objective": name, "targets": targets})
            made = make_targets(config, encoded.prompts, base)
            assert torch.equal(made.wanted, wanted), name
            assert needs_base(config) == (name == "opposite" or targets == "soft")
            if targets == "hard":
                assert made.soft is None
                continue
            assert torch.allclose(made.soft.sum(1), torch.ones(len(encoded)), atol=1e-6)
            assert torch.equal(made.soft[:, 0] >= made.soft[:, 1], wanted)
            assert torch.allclose(made.soft[:, 2], base[:, 2].exp())
    swapped = make_targets(CONFIG.model_copy(update={"objective": "opposite"}), encoded.prompts, base)
    assert torch.allclose(swapped.soft, base.exp()[:, [1, 0, 2]])


def test_instructed_needs_an_instruction(tokenizer):
    relation = load_relation("capitals")
    examples = relation.examples(relation.groups[:4], "question", 0)
    demos = draw_demo_sets(examples, 0, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples, "x", ["neutral"], templates_for(relation, "question"), demos, "plain", 0)
    with pytest.raises(ConfigError, match="instructed needs prompts that push to truth or lie"):
        make_targets(CONFIG.model_copy(update={"objective": "instructed"}), prompts)


@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_training_meets_it(objective, targets, tiny_lm, encoded, tmp_path):
    """The wanted choice's accuracy rises, and the targets are those of the model with the adapter off."""
    lm = tiny_lm("llama")
    config = CONFIG.model_copy(update={"objective": objective, "targets": targets})
    engine = Engine(lm.model, lm.structure)
    says = answer_logprobs(engine, encoded)
    wrapped = attach(lm.model, lm.structure, config, 0)
    aims = targets_of(wrapped, engine, encoded, config)
    assert torch.equal(aims.wanted, make_targets(config, encoded.prompts, says).wanted)
    before = measure(engine, encoded, aims, config)
    train_adapter(wrapped, engine, encoded, encoded, config, 0, tmp_path)
    after = measure(engine, encoded, aims, config)
    assert after["loss"] < before["loss"] and after["accuracy"] > before["accuracy"]
    again = targets_of(wrapped, engine, encoded, config)
    assert torch.equal(again.wanted, aims.wanted), "a trained adapter does not change what is asked for"
    if targets == "soft":
        assert torch.allclose(again.soft, aims.soft, atol=1e-5)


def test_what_is_kept_stays(tiny_lm, encoded, tokenizer, tmp_path):
    """With weights on the rest of the vocabulary and on neutral text, both move less, and the objective is still learned."""
    learned, measured = (encode_paragraphs(tokenizer, part)[:2] for part in neutral_paragraphs())
    drifts, rests, losses = [], [], []
    for weight in (0.0, 10.0):
        lm = tiny_lm("llama")
        engine = Engine(lm.model, lm.structure)
        (batch,) = engine.plan(encoded.ids[:8], 1 << 20)
        choices = [encoded.choices[row] for row in batch.rows]
        with torch.no_grad():
            before = engine.run(batch, states=False).logits
        config = CONFIG.model_copy(
            update={"kl_vocab_weight": weight, "kl_text_weight": weight, "epochs": 6, "early_stopping": False}
        )
        wrapped = attach(lm.model, lm.structure, config, 0)
        folder = tmp_path / str(weight)
        folder.mkdir()
        result = train_adapter(wrapped, engine, encoded, encoded, config, 0, folder, neutral=learned)
        with torch.no_grad():
            rests.append(float(rest_divergence(before, engine.run(batch, states=False).logits, choices).mean()))
        drifts.append(drift(wrapped, lm.model, measured)["kl"])
        losses.append(result.epochs[-1]["loss"] - result.epochs[0]["loss"])
    assert drifts[1] < drifts[0] / 2 and rests[1] < rests[0] / 2
    assert max(losses) < 0


def test_drift_against_a_plain_computation(tiny_lm, tokenizer):
    lm = tiny_lm("llama")
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    (ids,) = encode_paragraphs(tokenizer, neutral_paragraphs()[1][:1])
    still = drift(wrapped, lm.model, [ids])
    assert still["kl"] == 0 and still["perplexity_on"] == still["perplexity_off"]
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
        on = torch.log_softmax(lm.model(torch.tensor([ids])).logits[0], -1)
        with adapter_off(lm.model):
            off = torch.log_softmax(lm.model(torch.tensor([ids])).logits[0], -1)
    found = drift(wrapped, lm.model, [ids, ids])
    nll = torch.nn.functional.nll_loss(on[:-1], torch.tensor(ids[1:]))
    assert np.isclose(found["perplexity_on"], math.exp(nll), rtol=1e-4)
    assert np.isclose(found["kl"], float((off.exp() * (off - on)).sum(-1)[:-1].mean()), rtol=1e-4)
    assert found["tokens"] == 2 * (len(ids) - 1)
    assert np.isclose(
        float(text_divergence(wrapped, lm.model, ids).detach()),
        float((off.exp() * (off - on)).sum(-1).mean()),
        rtol=1e-4,
    )


def test_neutral_text_of_ones_own(tokenizer, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("One.\n\nTwo\nlines.\n\n\nThree.")
    assert neutral_paragraphs(str(file)) == (["One.", "Three."], ["Two lines."])
    file.write_text("only one")
    with pytest.raises(DataError, match="has 1 paragraphs, at least 2"):
        neutral_paragraphs(str(file))
    with pytest.raises(DataError, match="cannot read adapter.neutral_text"):
        neutral_paragraphs(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no paragraph of two tokens"):
        encode_paragraphs(tokenizer, ["a"])
    ours = neutral_paragraphs()
    assert len(ours[0]) == len(ours[1]) == 12 and not set(ours[0]) & set(ours[1])
