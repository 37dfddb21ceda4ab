"""Training for the worst group: gradients by hand, weights by the paper's rule, stopped by the worst."""

import numpy as np
import pytest
import torch

from adapter_contract import asked_capitals
from adapterprobe.adapters import attach, train_adapter
from adapterprobe.adapters.attach import trainable
from adapterprobe.adapters.batch_losses import batch_losses
from adapterprobe.adapters.batching import micro_batches
from adapterprobe.adapters.gradient_step import Stepper
from adapterprobe.adapters.group_dro import GroupWeights
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.objectives import make_targets
from adapterprobe.adapters.preflight import check_adapter
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError
from adapterprobe.prompts.prompt_sets import set_names

CONFIG = AdapterConfig(
    layers="1-3", rank=4, alpha=8, epochs=3, lr=0.01, batch_size=8, micro_batch=8, patience=9, group_dro=0.3
)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return asked_capitals(tokenizer)


def train(lm, encoded, folder, config=CONFIG):
    wrapped = attach(lm.model, lm.structure, config, 0)
    return wrapped, train_adapter(wrapped, Engine(lm.model, lm.structure), encoded, encoded, config, 0, folder)


def test_weights_rise_with_the_loss_as_in_algorithm_1():
    weights = GroupWeights(["a", "b", "a", "c"], 0.5)
    # Three groups weigh alike, whatever their sizes.
    assert weights.of([0, 1, 2, 3]).tolist() == pytest.approx([2 / 3, 4 / 3, 2 / 3, 4 / 3])
    weights.observe([0, 2], torch.tensor([1.0, 3.0]))
    weights.observe([1], torch.tensor([4.0]))
    weights.update()
    expected = np.exp(0.5 * np.array([2.0, 4.0, 0.0]))
    expected /= expected.sum()
    assert weights.weights == pytest.approx(expected)
    assert weights.of([1, 3]).tolist() == pytest.approx((4 * expected[[1, 2]]).tolist())
    # A step that is taken again is counted once.
    weights.observe([0], torch.tensor([100.0]))
    weights.begin()
    weights.observe([3], torch.tensor([0.0]))
    weights.update()
    assert weights.weights == pytest.approx(expected)


@pytest.mark.parametrize("cut", [8, 3])
def test_gradients_are_those_of_the_weighted_loss(cut, tiny_lm, encoded):
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, CONFIG, 0)
    with torch.no_grad():
        for parameter in trainable(wrapped).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    engine = Engine(lm.model, lm.structure)
    targets = make_targets(CONFIG, encoded.prompts)
    stepper = Stepper(wrapped, engine, encoded, targets, CONFIG, (), cut)
    robust = GroupWeights([p.condition for p in encoded.prompts], 0.3)
    robust.weights = np.array([0.9, 0.1])
    (batch,) = micro_batches(encoded.subset(range(8)), 8, np.random.default_rng(0))
    wrapped.train()
    plain = stepper.gradients([batch], 0, 0)
    even = {name: p.grad.clone() for name, p in trainable(wrapped).items()}
    stepper.robust = robust
    assert stepper.gradients([batch], 0, 0) == pytest.approx(plain, rel=1e-5), "what is told is the plain loss"
    found = {name: p.grad.clone() for name, p in trainable(wrapped).items()}
    stepper.forget()
    by_hand = torch.tensor([1.8 if encoded.prompts[row].condition == "lie" else 0.2 for row in batch.rows])
    with batch_losses(engine, batch, encoded, targets, CONFIG) as here:
        ((here.losses * by_hand).sum() / len(batch.rows)).backward()
    for name, parameter in trainable(wrapped).items():
        assert torch.allclose(parameter.grad, found[name], rtol=1e-3, atol=1e-6 * float(found[name].abs().max())), name
    assert any(not torch.allclose(even[name], found[name], rtol=0.05) for name in found)


def test_it_is_stopped_by_the_worst_set(tiny_lm, encoded, tmp_path):
    lm = tiny_lm()
    _, result = train(lm, encoded, tmp_path)
    worst = [epoch["worst_set_loss"] for epoch in result.epochs]
    assert result.best_epoch == 1 + int(np.argmin(worst))
    engine, targets = Engine(lm.model, lm.structure), make_targets(CONFIG, encoded.prompts)
    losses = np.zeros(len(encoded))
    for batch in engine.plan(encoded.ids):
        with torch.no_grad(), batch_losses(engine, batch, encoded, targets, CONFIG) as found:
            losses[list(batch.rows)] = found.losses.numpy()
    assert losses.mean() == pytest.approx(measure(engine, encoded, targets, CONFIG)["loss"], rel=1e-5)
    names = set_names(encoded.prompts)
    assert len(set(names)) > 2
    assert max(losses[names == name].mean() for name in set(names)) == pytest.approx(min(worst), rel=1e-3)


def test_several_processes_are_refused(monkeypatch):
    from adapterprobe.adapters import preflight

    monkeypatch.setattr(preflight.processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="2 are at work; train in one"):
        check_adapter(CONFIG)
