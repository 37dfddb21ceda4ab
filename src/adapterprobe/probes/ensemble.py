"""An ensemble of logistic probes on resampled rows (Breiman 1996; the baseline of Wang et al. 2023)."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.registry import register
from adapterprobe.probes.uncertainty import Uncertainty, logit, of_members


@register("ensemble")
class EnsembleProbe(UnweightedProbe):
    """Logistic regressions, each on a bootstrap sample; their mean probability is the score. With `pairs`, both rows of a pair
    are drawn together.

    Args:
        C: inverse penalty. members: how many. random_state: seed of the samples.
    """

    wants = ("pairs",)

    def __init__(self, C: float = 0.01, members: int = 30, random_state: int = 0):
        self.C = C
        self.members = members
        self.random_state = random_state

    def _fit(self, X, y, sample_weight, pairs=None):
        rng = np.random.default_rng(self.random_state)
        self.mean_, self.scale_ = standardise(X)
        Z, squares, rotation = orthogonal((X - self.mean_) / self.scale_)
        alone = np.arange(len(X))
        units = alone if pairs is None else np.where(pairs < 0, -1 - alone, pairs)
        _, units = np.unique(units, return_inverse=True)
        counts = np.stack([self._draw(units, y, rng) for _ in range(self.members)], axis=1)
        beta, _ = solve_logistic(Z, squares, y, np.full(self.members, self.C), counts, max_iter=100)
        self.coef_, self.intercepts_ = beta[:, :-1] @ rotation, beta[:, -1].copy()

    @staticmethod
    def _draw(units: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """How often each row is drawn; both labels are."""
        for _ in range(100):
            counts = np.bincount(rng.integers(units.max() + 1, size=units.max() + 1), minlength=units.max() + 1)[units]
            if len(np.unique(y[counts > 0])) == 2:
                return counts.astype(float)
        return np.ones(len(y))

    def _members(self, X):
        return expit((X - self.mean_) / self.scale_ @ self.coef_.T + self.intercepts_).T

    def _decide(self, X):
        return logit(self._members(X).mean(0))

    def uncertainty(self, X) -> Uncertainty:
        """See `Uncertainty`."""
        return of_members(self._members(self._new(X)))

    @property
    def direction(self):
        return self.coef_.mean(0) / self.scale_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
