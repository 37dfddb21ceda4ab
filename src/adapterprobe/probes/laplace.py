"""Bayesian logistic regression by Laplace's approximation (MacKay 1992; Bishop 2006, section 4.5)."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from adapterprobe.probes.base import Probe
from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.registry import register
from adapterprobe.probes.uncertainty import Uncertainty, expected, logit, of_latent


@register("laplace")
class LaplaceProbe(Probe):
    """Prior w ~ N(0, C I) on standardised features, a flat one on the intercept; the posterior is a Gaussian around the maximum
    with the inverse Hessian as covariance (Bishop, eq. 4.143). Predictions average the logistic function over it.

    Outside the span of the rows that are fitted on the posterior is the prior, so that new kinds of prompts are uncertain.

    Args:
        C: variance of the prior, which is the inverse penalty of the maximum.
    """

    def __init__(self, C: float = 0.01):
        self.C = C

    def _fit(self, X, y, sample_weight):
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        self.mean_, self.scale_ = standardise(X, weight)
        Z, squares, self.span_ = orthogonal((X - self.mean_) / self.scale_)
        beta, _ = solve_logistic(Z, squares, y, np.array([self.C]), weight, max_iter=100)
        self.coef_, self.intercept_ = beta[0, :-1], float(beta[0, -1])
        chance = expit(Z @ self.coef_ + self.intercept_)
        design = np.column_stack([Z, np.ones(len(Z))])
        hessian = design.T @ (design * (weight * chance * (1 - chance))[:, None])
        hessian[np.arange(Z.shape[1]), np.arange(Z.shape[1])] += 1 / self.C
        # Perfectly separated rows leave the flat intercept without curvature.
        hessian[-1, -1] += 1e-6
        self.covariance_ = np.linalg.inv(hessian)

    def latent(self, X) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance) of the log-odds of each row."""
        return self._latent(self._new(X))

    def _latent(self, X):
        Z = (X - self.mean_) / self.scale_
        inside = Z @ self.span_.T
        design = np.column_stack([inside, np.ones(len(Z))])
        variance = np.einsum("ij,jk,ik->i", design, self.covariance_, design, optimize=True)
        outside = np.maximum((Z**2).sum(1) - (inside**2).sum(1), 0)
        return inside @ self.coef_ + self.intercept_, np.maximum(variance, 0) + self.C * outside

    def _decide(self, X):
        return logit(expected(expit, *self._latent(X)))

    def uncertainty(self, X) -> Uncertainty:
        """See `Uncertainty`."""
        return of_latent(*self.latent(X))

    @property
    def direction(self):
        return self.coef_ @ self.span_ / self.scale_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
