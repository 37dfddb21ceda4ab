"""Mass-mean probe: the difference of the class means as direction (Marks & Tegmark 2023, section 5)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.direction import DirectionProbe
from adapterprobe.probes.registry import register
from adapterprobe.probes.shrinkage import solve_within


@register("mass_mean")
class MassMeanProbe(DirectionProbe):
    """Projection on theta = mean(X | 1) - mean(X | 0).

    Args:
        covariance: tilt the direction by the inverse within-class covariance (Marks & Tegmark's p_mm^iid),
            estimated with Ledoit-Wolf shrinkage, since features outnumber rows. Weights count for the means alone.
    """

    def __init__(self, covariance: bool = False):
        self.covariance = covariance

    def _direct(self, X, y, sample_weight):
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        means = np.stack([np.average(X[y == label], axis=0, weights=weight[y == label]) for label in (0, 1)])
        difference = means[1] - means[0]
        return solve_within(X, y, difference) if self.covariance else difference
