"""p-values of novelty: uniform where nothing is new, small where the states are others."""

import numpy as np
import pytest
from scipy import stats

from adapterprobe.detectors.novelty import Novelty

WIDTH, GROUPS = 12, 400


def states(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows a group, alike as the prompts of one subject are."""
    subject = rng.standard_normal((groups, WIDTH))
    X = np.repeat(subject, 2, axis=0) + 0.3 * rng.standard_normal((2 * groups, WIDTH))
    return X.astype(np.float32), np.repeat(np.arange(groups), 2)


def test_p_is_uniform_where_nothing_is_new():
    """Over many draws of reference and new subjects: rare alarms come as rarely as p says, at every level."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, groups = states(rng, GROUPS)
        # One row a subject: rows of one group are no independent draws.
        found.append(Novelty(X, groups).p_values(states(rng, 100)[0][::2]))
    p = np.concatenate(found)
    assert stats.kstest(p, "uniform").statistic < 0.05
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.25 * level + 0.005)


def test_groups_are_not_their_own_neighbours():
    """Rows with a twin in their group would all seem usual, and every new row new."""
    rng = np.random.default_rng(0)
    X, groups = states(rng, GROUPS)
    new = states(rng, GROUPS)[0][::2]
    blind = Novelty(X, np.arange(len(X))).p_values(new)
    assert (blind <= 0.05).mean() > (Novelty(X, groups).p_values(new) <= 0.05).mean() + 0.01


def test_other_states_are_new():
    rng = np.random.default_rng(1)
    X, groups = states(rng, GROUPS)
    reference = Novelty(X, groups)
    assert (reference.p_values(X[:50] + 4) <= 1 / (len(X) + 1) + 1e-12).all()
    assert (reference.p_values(X[:50] * 3) <= 0.05).mean() > 0.9
