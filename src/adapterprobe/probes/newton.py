"""L2-penalised logistic regression for several penalties at once, by Newton's method.

The objective is scikit-learn's: C * sum of log-losses + |w|^2 / 2, the intercept free. All penalties share
one design matrix and are solved as one batch of small linear systems (Hastie, Tibshirani & Friedman 2009,
section 4.4.1), which for probes is faster than any first-order method and exact to rounding.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def solve_logistic(
    Z: np.ndarray, y: np.ndarray, strengths: np.ndarray, weight: np.ndarray, max_iter: int, tol: float = 1e-7
) -> tuple[np.ndarray, int]:
    """Coefficients (strengths x (features + 1), the intercept last) and the iterations used.

    Args:
        Z: rows x features; y: 0 or 1; weight: of each row.
        tol: stop when no gradient entry, relative to the rows' weight, is larger.
    """
    design = np.column_stack([Z, np.ones(len(Z))])
    penalty = np.append(np.ones(Z.shape[1]), 0.0) / np.asarray(strengths)[:, None]
    beta = np.zeros((len(strengths), design.shape[1]))
    diagonal = np.arange(design.shape[1])
    value = _objective(design, y, weight, penalty, beta)
    iterations = 0
    while iterations < max_iter:
        iterations += 1
        chance = expit(beta @ design.T)
        gradient = ((chance - y) * weight) @ design + penalty * beta
        if np.abs(gradient).max() <= tol * weight.sum():
            break
        curvature = np.maximum(chance * (1 - chance), 1e-12) * weight
        hessian = (design.T[None] * curvature[:, None, :]) @ design
        hessian[:, diagonal, diagonal] += penalty + 1e-10
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # Full steps nearly always descend; where one does not, halve it.
        size = np.ones((len(beta), 1))
        for _ in range(30):
            trial = beta - size * step
            tried = _objective(design, y, weight, penalty, trial)
            worse = tried > value + 1e-12 * np.abs(value)
            if not worse.any():
                break
            size[worse] /= 2
        beta, value = trial, tried
    return beta, iterations


def _objective(design, y, weight, penalty, beta) -> np.ndarray:
    logits = beta @ design.T
    return (np.logaddexp(0, logits) - y * logits) @ weight + (penalty * beta**2).sum(1) / 2
