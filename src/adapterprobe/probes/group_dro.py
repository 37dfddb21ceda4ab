"""Logistic regression for the worst set of rows (Sagawa, Koh, Hashimoto & Liang 2020)."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.registry import register


@register("group_dro")
class GroupDroProbe(UnweightedProbe):
    """The linear probe whose highest mean loss over sets is lowest, with an L2 penalty (which the authors found to be needed).

    The problem is convex: weights of sets rise by the exponential of their loss, the best coefficients answer them, and the mean of the
    answers goes to the optimum (Freund & Schapire 1999, section 4). Sets are a run's data set x polarity x prompt type; without `sets` it is
    logistic regression.

    Args:
        C: inverse penalty, as of `logistic`. step: how fast weights rise. rounds: how often they do.
    """

    wants = ("sets",)

    def __init__(self, C: float = 0.01, step: float = 2.0, rounds: int = 30):
        self.C = C
        self.step = step
        self.rounds = rounds

    def _fit(self, X, y, sample_weight, sets=None):
        self.mean_, self.scale_ = standardise(X)
        Z, squares, rotation = orthogonal((X - self.mean_) / self.scale_)
        codes = np.zeros(len(X), int) if sets is None else np.unique(sets, return_inverse=True)[1]
        sizes = np.bincount(codes)
        total = np.zeros(len(sizes))
        beta = np.zeros(Z.shape[1] + 1)
        rounds = self.rounds if len(sizes) > 1 else 1
        for _ in range(rounds):
            shares = softmax(total)
            # As heavy all together as the rows are, so that C means what it means elsewhere.
            weight = (shares / sizes)[codes] * len(X)
            (found,), _ = solve_logistic(Z, squares, y, np.array([self.C]), weight, max_iter=100, tol=1e-5)
            margins = Z @ found[:-1] + found[-1]
            losses = np.logaddexp(0, margins) - y * margins
            total += self.step * np.bincount(codes, losses) / sizes
            beta += found / rounds
        self.set_weights_ = softmax(total)
        self.coef_ = beta[:-1] @ rotation
        self.intercept_ = float(beta[-1])

    def _decide(self, X):
        return ((X - self.mean_) / self.scale_) @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_ / self.scale_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
