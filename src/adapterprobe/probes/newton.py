"""L2-penalised logistic regression for many penalties and folds at once.

The objective is scikit-learn's: C * sum of log-losses + |w|^2 / 2, the intercept free. All problems share one design
matrix, whose columns are made orthogonal first: in these coordinates the penalty is the same and the Hessian nearly
diagonal, so that Newton's steps can be found by a few preconditioned conjugate gradients (Lin, Weng & Keerthi 2008).
Each of these costs two products of the matrix with one column per problem, where a dense Hessian would cost a product
of the matrix with itself per problem.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

MOST_CG = 250


def orthogonal(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates in which the columns are orthogonal: (rows x r, their squared norms, r x features).

    The first times the last is Z again. r is the rank: with fewer rows than features the optimum lies in the rows'
    span (Hastie, Tibshirani & Friedman 2009, section 18.3.5).
    """
    wide = len(Z) < Z.shape[1]
    values, vectors = np.linalg.eigh(Z @ Z.T if wide else Z.T @ Z)
    kept = values > max(values[-1], 0.0) * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        return vectors * np.sqrt(values), values, (vectors / np.sqrt(values)).T @ Z
    return Z @ vectors, values, vectors.T


def standardise(X: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each feature; 1 for one that is constant up to rounding, so that its noise is not blown up."""
    mean = np.average(X, axis=0, weights=weight)
    spread = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    return mean, np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, 1.0)


def solve_logistic(
    Z: np.ndarray,
    squares: np.ndarray,
    y: np.ndarray,
    strengths: np.ndarray,
    weight: np.ndarray,
    max_iter: int,
    tol: float = 1e-7,
) -> tuple[np.ndarray, int]:
    """Coefficients (problems x (features + 1), the intercept last) and the Newton iterations used.

    Args:
        Z: rows x features, columns orthogonal; squares: their squared norms.
        y: 0 or 1 per row.
        strengths: C of each problem.
        weight: of each row, or rows x problems (0 leaves a row out of a problem).
        tol: stop when no gradient entry, relative to the rows' weight, is larger.
    """
    penalty = 1 / np.asarray(strengths, float)
    weight = np.broadcast_to(weight if weight.ndim == 2 else weight[:, None], (len(Z), len(penalty)))
    y = y[:, None]
    beta, bias = np.zeros((Z.shape[1], len(penalty))), np.zeros(len(penalty))
    value, margins = _objective(Z, y, weight, penalty, beta, bias)
    active = np.arange(len(penalty))
    iterations = 0
    while iterations < max_iter:
        iterations += 1
        chance = expit(margins[:, active])
        excess = weight[:, active] * (chance - y)
        slope = Z.T @ excess + penalty[active] * beta[:, active]
        slope0 = excess.sum(0)
        error = np.maximum(np.abs(slope).max(0, initial=0.0), np.abs(slope0)) / weight[:, active].sum(0)
        going = error > tol
        if not going.any():
            break
        active, chance, slope, slope0 = active[going], chance[:, going], slope[:, going], slope0[going]
        curvature = np.maximum(chance * (1 - chance), 1e-10) * weight[:, active]
        step, step0 = _newton_step(Z, squares, curvature, penalty[active], slope, slope0, error[going])
        # Full steps nearly always descend; where one does not, halve it.
        size = np.ones(len(active))
        for _ in range(30):
            trial, trial0 = beta.copy(), bias.copy()
            trial[:, active] -= size * step
            trial0[active] -= size * step0
            tried, margins = _objective(Z, y, weight, penalty, trial, trial0)
            worse = tried[active] > value[active] + 1e-12 * np.abs(value[active])
            if not worse.any():
                break
            size[worse] /= 2
        beta, bias, value = trial, trial0, tried
    return np.vstack([beta, bias]).T, iterations


def _newton_step(Z, squares, curvature, penalty, slope, slope0, error) -> tuple[np.ndarray, np.ndarray]:
    """Inexact solutions of Hessian @ step = slope, by conjugate gradients with the Hessian's diagonal."""
    mass = curvature.sum(0)
    diagonal = squares[:, None] * (mass / len(Z)) + penalty
    step, step0 = np.zeros_like(slope), np.zeros_like(slope0)
    left, left0 = slope.copy(), slope0.copy()
    towards, towards0 = left / diagonal, left0 / mass
    length = (left * towards).sum(0) + left0 * towards0
    goal = length * np.minimum(0.01, error)
    for _ in range(MOST_CG):
        bent = curvature * (Z @ towards + towards0)
        image, image0 = Z.T @ bent + penalty * towards, bent.sum(0)
        along = (towards * image).sum(0) + towards0 * image0
        share = np.where((length > goal) & (along > 0), length / np.where(along > 0, along, 1.0), 0.0)
        step += share * towards
        step0 += share * towards0
        left -= share * image
        left0 -= share * image0
        scaled, scaled0 = left / diagonal, left0 / mass
        now = (left * scaled).sum(0) + left0 * scaled0
        if (now <= goal).all():
            break
        ratio = np.where(length > goal, now / np.where(length > 0, length, 1.0), 0.0)
        towards = scaled + ratio * towards
        towards0 = scaled0 + ratio * towards0
        length = now
    return step, step0


def _objective(Z, y, weight, penalty, beta, bias) -> tuple[np.ndarray, np.ndarray]:
    margins = Z @ beta + bias
    losses = np.logaddexp(0, margins) - y * margins
    return (losses * weight).sum(0) + penalty * (beta**2).sum(0) / 2, margins
