"""Logistic regression for the worst set of rows (Sagawa, Koh, Hashimoto & Liang 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.registry import register
from adapterprobe.probes.shared_fits import SharedFits


@register("group_dro")
class GroupDroProbe(SharedFits):
    """The linear probe whose highest mean loss over sets is lowest, with an L2 penalty (which the authors found to be needed).

    The problem is convex: weights of sets rise by the exponential of their loss, the best coefficients answer them, and the mean of the
    answers goes to the optimum (Freund & Schapire 1999, section 4). Sets are a run's data set x polarity x prompt type; without `sets` it is
    logistic regression.

    Args:
        C: inverse penalty, as of `logistic`. step: how fast weights rise. rounds: how often they do.
    """

    wants = ("sets",)

    def __init__(self, C: float = 0.01, step: float = 2.0, rounds: int = 20):
        self.C = C
        self.step = step
        self.rounds = rounds

    coef_: np.ndarray
    intercept_: float
    mean_: np.ndarray
    scale_: np.ndarray
    set_weights_: np.ndarray

    @classmethod
    def _fit_together(cls, probes: Sequence[GroupDroProbe], X, y, sets=None) -> None:
        """Fit probes that differ in C alone: each round is one problem for all of them."""
        first = probes[0]
        mean, scale = standardise(X)
        Z, squares, rotation = orthogonal((X - mean) / scale)
        codes = np.zeros(len(X), int) if sets is None else np.unique(sets, return_inverse=True)[1]
        sizes = np.bincount(codes)
        strengths = np.array([probe.C for probe in probes], float)
        total = np.zeros((len(sizes), len(probes)))
        beta = np.zeros((len(probes), Z.shape[1] + 1))
        rounds = first.rounds if len(sizes) > 1 else 1
        for _ in range(rounds):
            # As heavy all together as the rows are, so that C means what it means elsewhere.
            weight = (softmax(total, axis=0) / sizes[:, None])[codes] * len(X)
            found, _ = solve_logistic(Z, squares, y, strengths, weight, max_iter=100, tol=1e-5)
            margins = Z @ found[:, :-1].T + found[:, -1]
            losses = np.logaddexp(0, margins) - y[:, None] * margins
            by_set = np.stack([np.bincount(codes, column) for column in losses.T], axis=1)
            total += first.step * by_set / sizes[:, None]
            beta += found / rounds
        shares = softmax(total, axis=0)
        for place, probe in enumerate(probes):
            probe.mean_, probe.scale_, probe.set_weights_ = mean, scale, shares[:, place].copy()
            probe.coef_ = beta[place, :-1] @ rotation
            probe.intercept_ = float(beta[place, -1])

    def _decide(self, X):
        return ((X - self.mean_) / self.scale_) @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_ / self.scale_
