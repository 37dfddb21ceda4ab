"""Measures of how states differ, against closed forms and planted cases."""

import numpy as np
import pytest

from adapterprobe.analyses.cka import class_share, linear_cka, relative_change


def test_cka_is_one_for_a_rotation_and_nought_for_strangers():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 20))
    turned, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    assert linear_cka(X, 3 * X @ turned + 5) == pytest.approx(1.0)
    # More features than rows: the plain estimator would say 0.6 here.
    wide = [rng.standard_normal((60, 400)) for _ in range(2)]
    plain = np.linalg.norm(wide[0].T @ wide[1]) ** 2 / np.prod([np.linalg.norm(w.T @ w) for w in wide])
    assert plain > 0.5 and abs(linear_cka(*wide)) < 0.1
    assert np.isnan(linear_cka(np.ones((10, 3)), X[:10]))


def test_cka_between_shared_and_own_parts():
    """Half of the variance is shared: alignment of the Gram matrices is that of the covariances, in the limit of many rows."""
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((1500, 4))
    first, second = (np.hstack([shared, rng.standard_normal((1500, 4))]) for _ in range(2))
    # ||C_xy||^2 / (||C_xx|| ||C_yy||) = 4 / 8
    assert linear_cka(first, second) == pytest.approx(0.5, abs=0.05)


def test_relative_change():
    X = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert relative_change(X, X * 1.5) == pytest.approx(0.5)
    assert relative_change(X, X) == 0


def test_class_share_finds_what_is_planted_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    labels, cells = rng.integers(0, 2, 400), np.repeat(["a", "b"], 200)
    noise = rng.standard_normal((400, 600))
    assert abs(class_share(noise, labels, cells)) < 0.002
    # One direction with a gap of 2d between classes has d^2 of the variance beside the noise's 600.
    direction = np.zeros(600)
    direction[7] = 1
    moved = noise + 30 * np.outer(labels - 0.5, direction)
    assert class_share(moved, labels, cells) == pytest.approx(15**2 / (600 + 15**2), abs=0.01)
    # What tells the cells apart is not about labels.
    assert abs(class_share(noise + 50 * (cells == "a")[:, None], labels, cells)) < 0.002
    assert np.isnan(class_share(noise, np.zeros(400), cells))
