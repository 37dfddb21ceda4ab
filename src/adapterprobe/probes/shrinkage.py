"""The within-class covariance with shrinkage (Ledoit & Wolf 2004), solved without ever being formed."""

from __future__ import annotations

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from adapterprobe.probes.newton import orthogonal


def solve_within(X: np.ndarray, y: np.ndarray, target: np.ndarray, shrinkage: float | None = None) -> np.ndarray:
    """S^-1 target, where S = (1 - a) C + a tr(C) / d I is the shrunk covariance within the classes.

    In the span of the rows S is diagonal up to a rotation, and outside of it a multiple of the identity, so that the cost
    is that of the smaller of rows and features.

    Args:
        X: rows x features; y: 0 or 1; target: features.
        shrinkage: a in [0, 1]; None: Ledoit and Wolf's choice.
    """
    means = np.stack([X[y == label].mean(0) for label in (0, 1)])
    within = X - means[y]
    rows, features = within.shape
    share = float(ledoit_wolf_shrinkage(within, assume_centered=True)) if shrinkage is None else shrinkage
    mean_variance = float((within**2).sum() / rows / features)
    if mean_variance == 0:
        return target
    _, squares, rotation = orthogonal(within)
    floor = max(share * mean_variance, 1e-12 * mean_variance)
    inside = rotation @ target
    variances = (1 - share) * squares / rows + floor
    return rotation.T @ (inside / variances - inside / floor) + target / floor
