"""Linear artificial tomography: the main axis of differences within pairs (Zou et al. 2023, section 3.1)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.direction import UnweightedDirectionProbe
from adapterprobe.probes.pairs import drawn, paired
from adapterprobe.probes.registry import register


def main_axis(D: np.ndarray) -> np.ndarray:
    """The first principal component of D's rows as they are (not centred): a unit vector."""
    return np.linalg.svd(D, full_matrices=False)[2][0]


@register("lat")
class LatProbe(UnweightedDirectionProbe):
    """The first principal component of the centred differences within pairs, each in a drawn order.

    Labels say only which way it points, and scale it to a probability. Without `pairs`, any two rows make one, as in the
    paper, drawn without labels.

    Args:
        random_state: seed of the order within pairs, and of drawn pairs.
    """

    wants = ("pairs",)

    def __init__(self, random_state: int = 0):
        self.random_state = random_state

    def _direct(self, X, y, sample_weight, pairs=None):
        rng = np.random.default_rng(self.random_state)
        first, second = drawn(len(X), rng) if pairs is None else paired(pairs, None, rng)
        D = X[first] - X[second]
        return main_axis(D - D.mean(0)) if len(D) > 1 else D[0]
