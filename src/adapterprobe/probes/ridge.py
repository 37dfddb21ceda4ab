"""Ridge classifier: least squares on labels -1 and 1 with an L2 penalty (Hoerl & Kennard 1970)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.direction import DirectionProbe
from adapterprobe.probes.newton import orthogonal, standardise
from adapterprobe.probes.registry import register


@register("ridge")
class RidgeProbe(DirectionProbe):
    """Scikit-learn's RidgeClassifier in closed form, its output mapped to a probability.

    Args:
        alpha: the penalty. scale: standardise features first.
    """

    def __init__(self, alpha: float = 1000.0, scale: bool = True):
        self.alpha = alpha
        self.scale = scale

    def _direct(self, X, y, sample_weight):
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        mean, scale = standardise(X, weight)
        scale = scale if self.scale else np.ones_like(scale)
        root = np.sqrt(weight)[:, None]
        target = root[:, 0] * (2 * y - 1 - np.average(2 * y - 1, weights=weight))
        Z, squares, rotation = orthogonal((X - mean) / scale * root)
        return (Z.T @ target / (squares + self.alpha)) @ rotation / scale

    @classmethod
    def candidates(cls, strengths):
        return [{"alpha": 10 / strength} for strength in strengths]
