"""Mass-mean probe: the difference of the class means as direction (Marks & Tegmark 2023, section 5)."""

from __future__ import annotations

import numpy as np
from sklearn.covariance import LedoitWolf

from adapterprobe.probes.base import Probe, register
from adapterprobe.probes.newton import solve_logistic


@register("mass_mean")
class MassMeanProbe(Probe):
    """Projection on theta = mean(X | 1) - mean(X | 0), mapped to a probability by a logistic fit in one
    dimension on the same rows.

    Args:
        covariance: tilt the direction by the inverse within-class covariance (Marks & Tegmark's p_mm^iid),
            estimated with Ledoit-Wolf shrinkage, since features outnumber rows.
    """

    def __init__(self, covariance: bool = False):
        self.covariance = covariance

    def _fit(self, X, y, sample_weight):
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        means = np.stack([np.average(X[y == label], axis=0, weights=weight[y == label]) for label in (0, 1)])
        self.direction_ = means[1] - means[0]
        if self.covariance:
            within = LedoitWolf(assume_centered=True).fit(X - means[y]).covariance_
            self.direction_ = np.linalg.solve(within, self.direction_)
        projected = X @ self.direction_
        self.centre_ = float(np.average(projected, weights=weight))
        spread = float(np.sqrt(np.average((projected - self.centre_) ** 2, weights=weight)))
        self.unit_ = spread if spread > 0 else 1.0
        line = ((projected - self.centre_) / self.unit_)[:, None]
        (fitted,), _ = solve_logistic(line, (line**2).sum(0), y, np.array([1e4]), weight, max_iter=100)
        self.slope_, self.intercept_ = float(fitted[0]), float(fitted[1])

    def _decide(self, X):
        return (X @ self.direction_ - self.centre_) / self.unit_ * self.slope_ + self.intercept_
