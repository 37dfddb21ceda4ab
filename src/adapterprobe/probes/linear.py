"""A one-layer linear probe trained by stochastic gradient descent (Alain & Bengio 2016)."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.registry import register


@register("linear")
class LinearProbe(UnweightedProbe):
    """Log-loss by scikit-learn's SGDClassifier with averaged weights, on standardised features.

    Args:
        alpha: L2 penalty. epochs: passes over the rows. random_state: seed of their order.
    """

    def __init__(self, alpha: float = 0.01, epochs: int = 50, random_state: int = 0):
        self.alpha = alpha
        self.epochs = epochs
        self.random_state = random_state

    def _fit(self, X, y, sample_weight):
        self.mean_, self.scale_ = standardise(X)
        model = SGDClassifier(
            loss="log_loss",
            alpha=self.alpha,
            average=True,
            max_iter=self.epochs,
            tol=None,  # pyright: ignore[reportArgumentType]: scikit-learn documents None
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((X - self.mean_) / self.scale_, y)
        self.coef_, self.intercept_ = np.array(model.coef_)[0], float(np.array(model.intercept_)[0])

    def _decide(self, X):
        return (X - self.mean_) / self.scale_ @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_ / self.scale_

    @classmethod
    def candidates(cls, strengths):
        return [{"alpha": alpha} for alpha in (1.0, 0.1, 0.01)]
