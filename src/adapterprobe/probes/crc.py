"""Contrastive representation clustering by the top principal component (Burns et al. 2022, section 2.3 and appendix)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.direction import UnweightedDirectionProbe
from adapterprobe.probes.lat import main_axis
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.pairs import drawn_by_label, paired
from adapterprobe.probes.registry import register


@register("crc")
class CrcProbe(UnweightedDirectionProbe):
    """The first principal component of x+ - x-, each side of the contrast pairs standardised by itself.

    Standardising by side takes away what tells the sides apart (an affirmation from a negation). Labels say which way it
    points, and scale it to a probability. Without `polarity` the sides are drawn; without `pairs` a pair is made of a row of
    each label, and then labels are used throughout.

    Args:
        random_state: seed of sides and pairs that are drawn.
    """

    wants = ("pairs", "polarity")

    def __init__(self, random_state: int = 0):
        self.random_state = random_state

    def _direct(self, X, y, sample_weight, pairs=None, polarity=None):
        rng = np.random.default_rng(self.random_state)
        first, second = drawn_by_label(y, rng) if pairs is None else paired(pairs, polarity, rng)
        scale = standardise(X)[1]
        sides = [(X[rows] - X[rows].mean(0)) / scale for rows in (first, second)]
        D = sides[0] - sides[1]
        return (main_axis(D) if D.any() else X[first[0]] - X[second[0]]) / scale
