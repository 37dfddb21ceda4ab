"""A probe with one hidden layer: what is there, but not linearly (Hewitt & Liang 2019 on its risks)."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.registry import register


@register("mlp")
class MlpProbe(UnweightedProbe):
    """Scikit-learn's MLPClassifier on standardised features.

    Args:
        hidden: units of the hidden layer. alpha: L2 penalty. epochs: most passes. random_state: seed of weights and order.
    """

    def __init__(self, hidden: int = 32, alpha: float = 1.0, epochs: int = 100, random_state: int = 0):
        self.hidden = hidden
        self.alpha = alpha
        self.epochs = epochs
        self.random_state = random_state

    def _fit(self, X, y, sample_weight):
        self.mean_, self.scale_ = standardise(X)
        model = MLPClassifier(
            (self.hidden,),
            alpha=self.alpha,
            max_iter=self.epochs,
            random_state=self.random_state,
            batch_size=min(64, len(X)),  # pyright: ignore[reportArgumentType]: a number, or "auto"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((X - self.mean_) / self.scale_, y)
        (self.inner_, outer), (self.inner_bias_, bias) = model.coefs_, model.intercepts_
        self.outer_, self.intercept_ = np.array(outer[:, 0]), float(bias[0])

    def _decide(self, X):
        hidden = np.maximum((X - self.mean_) / self.scale_ @ self.inner_ + self.inner_bias_, 0)
        return hidden @ self.outer_ + self.intercept_

    @classmethod
    def candidates(cls, strengths):
        return [{"alpha": alpha} for alpha in (10.0, 1.0, 0.1)]
