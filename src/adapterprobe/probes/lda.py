"""Linear discriminant analysis with a shrunk covariance (Fisher 1936; Ledoit & Wolf 2004)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.registry import register
from adapterprobe.probes.shrinkage import solve_within


@register("lda")
class LdaProbe(UnweightedProbe):
    """Log-odds of two Gaussians with one covariance, and the classes' shares as prior.

    Args:
        shrinkage: of the covariance within the classes towards a multiple of the identity; None: Ledoit and Wolf's.
    """

    def __init__(self, shrinkage: float | None = None):
        self.shrinkage = shrinkage

    def _fit(self, X, y, sample_weight):
        low, high = (X[y == label].mean(0) for label in (0, 1))
        self.coef_ = solve_within(X, y, high - low, self.shrinkage)
        share = float(np.mean(y))
        self.intercept_ = float(np.log(share / (1 - share)) - self.coef_ @ (low + high) / 2)

    def _decide(self, X):
        return X @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_
