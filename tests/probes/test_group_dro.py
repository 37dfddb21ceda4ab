"""A probe for the worst set: its optimum by another solver, and what it is for."""

import numpy as np
import pytest
from scipy.optimize import minimize

from adapterprobe import probes


def sets_with_a_shortcut(rows: int = 900, seed: int = 0):
    """A shortcut agrees with the truth in a large set and goes against it in a small one; the truth itself is weaker."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    small = np.arange(rows) % 10 == 0
    X = rng.standard_normal((rows, 6))
    X[:, 0] += 1.0 * (2 * y - 1)
    X[:, 1] += np.where(small, -3.0, 3.0) * (2 * y - 1)
    return X, y, np.where(small, "small", "large")


def test_the_worst_set_is_learned_for():
    X, y, sets = sets_with_a_shortcut()
    new, labels, where = sets_with_a_shortcut(seed=1)
    robust = probes.make("group_dro", C=1.0).fit(X, y, sets=sets)
    plain = probes.make("logistic", C=1.0).fit(X, y)
    right = {
        name: {s: float((p.predict(new) == labels)[where == s].mean()) for s in ("small", "large")}
        for name, p in (("robust", robust), ("plain", plain))
    }
    assert right["plain"]["small"] < 0.4 and right["robust"]["small"] > 0.75 and right["robust"]["large"] > 0.75, right
    assert robust.set_weights_.argmax() == 1, "the small set weighs most"


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_its_optimum_is_the_minimax(C):
    """Against a direct minimisation of the highest set loss, smoothed, with the same penalty."""
    X, y, sets = sets_with_a_shortcut()
    found = probes.make("group_dro", C=C, rounds=200, step=1.0).fit(X, y, sets=sets)
    Z = (X - X.mean(0)) / X.std(0)
    masks = [sets == name for name in np.unique(sets)]

    def worst(beta, sharp):
        margins = Z @ beta[:-1] + beta[-1]
        each = np.logaddexp(0, margins) - y * margins
        values = np.array([each[mask].mean() for mask in masks]) * len(y)
        top = values.max()
        smooth = top + np.log(np.exp(sharp * (values - top)).sum()) / sharp
        return smooth + (beta[:-1] ** 2).sum() / (2 * C)

    start = np.zeros(7)
    for sharp in (0.01, 0.1, 1.0):
        start = minimize(worst, start, args=(sharp,), method="BFGS").x
    mine = np.append(found.coef_, found.intercept_)
    assert worst(mine, 1.0) <= worst(start, 1.0) * 1.02


def test_one_set_is_logistic_regression():
    X, y, _ = sets_with_a_shortcut()
    plain = probes.make("logistic", C=0.1).fit(X, y).decision_function(X)
    for given in ({}, {"sets": np.zeros(len(X))}):
        assert np.allclose(probes.make("group_dro", C=0.1).fit(X, y, **given).decision_function(X), plain, atol=1e-3)
