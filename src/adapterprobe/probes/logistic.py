"""Logistic regression with an L2 penalty: the standard linear probe (Alain & Bengio 2016)."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from adapterprobe.probes.base import Probe, register


@register("logistic")
class LogisticProbe(Probe):
    """L2-penalised logistic regression on standardised features.

    With fewer rows than features, as is usual for probes, it is solved in the rows' own span: the penalised
    optimum lies there, so rotating the features onto their right singular vectors changes nothing but the
    number of dimensions (Hastie, Tibshirani & Friedman 2009, section 18.3.5).

    Args:
        C: inverse strength of the penalty, as in scikit-learn.
        scale: standardise features first.
        max_iter: iterations of L-BFGS.
    """

    def __init__(self, C: float = 0.01, scale: bool = True, max_iter: int = 1000):
        self.C = C
        self.scale = scale
        self.max_iter = max_iter

    def _fit(self, X, y, sample_weight):
        self.mean_ = X.mean(0) if self.scale else np.zeros(X.shape[1])
        spread = X.std(0) if self.scale else np.ones(X.shape[1])
        # A feature that is constant up to rounding says nothing; do not blow its noise up.
        self.scale_ = np.where(spread > 1e-9 * (1 + np.abs(self.mean_)), spread, 1.0)
        Z = (X - self.mean_) / self.scale_
        rotation = None
        if len(Z) < Z.shape[1] and Z.any():
            # Right singular vectors by way of the (small) Gram matrix.
            values, vectors = np.linalg.eigh(Z @ Z.T)
            kept = values > values[-1] * 1e-12
            rotation = (vectors[:, kept] / np.sqrt(values[kept])).T @ Z
            Z = vectors[:, kept] * np.sqrt(values[kept])
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=1e-6).fit(Z, y, sample_weight=sample_weight)
        self.coef_ = model.coef_[0] if rotation is None else model.coef_[0] @ rotation
        self.intercept_ = float(model.intercept_[0])
        self.n_iter_ = int(model.n_iter_[0])

    def _decide(self, X):
        return (X - self.mean_) / self.scale_ @ self.coef_ + self.intercept_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
