"""Pairwise ranking: the true member of a pair is to score higher than the false one (Herbrich et al. 2000)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.direction import UnweightedDirectionProbe
from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.pairs import drawn_by_label, paired
from adapterprobe.probes.registry import register


@register("ranking")
class RankingProbe(UnweightedDirectionProbe):
    """Logistic regression without intercept on differences within pairs of one label each (a linear Bradley-Terry model).

    What the members of a pair share (their subject, their condition) cannot help. Without `pairs` a row of each label is drawn,
    and each row of the commoner label is used once.

    Args:
        C: inverse penalty. random_state: seed of pairs that are drawn.
    """

    wants = ("pairs",)

    def __init__(self, C: float = 0.01, random_state: int = 0):
        self.C = C
        self.random_state = random_state

    def _direct(self, X, y, sample_weight, pairs=None):
        rng = np.random.default_rng(self.random_state)
        first, second = drawn_by_label(y, rng) if pairs is None else paired(pairs, None, rng)
        mixed = y[first] != y[second]
        if not mixed.any():
            raise ValueError("no pair has one row of each label; ranking needs such pairs")
        first, second = first[mixed], second[mixed]
        sign = np.where(y[first] == 1, 1.0, -1.0)[:, None]
        scale = standardise(X)[1]
        D = sign * (X[first] - X[second]) / scale
        if not D.any():
            raise ValueError("the rows of each pair are equal; there is nothing to rank by")
        # Every difference both ways round: the intercept is nought by symmetry.
        Z, squares, rotation = orthogonal(np.concatenate([D, -D]))
        labels = np.repeat([1, 0], len(D))
        beta, _ = solve_logistic(Z, squares, labels, np.array([self.C]), np.ones(len(labels)), max_iter=100)
        return beta[0, :-1] @ rotation / scale

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
