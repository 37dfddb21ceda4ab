"""Probes that are a direction: a projection, mapped to a probability by a logistic fit in one dimension."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.base import Probe, UnweightedProbe
from adapterprobe.probes.newton import solve_logistic


def log_odds_line(projected: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """(slope, intercept) of log-odds on a projection, by logistic regression on Platt's smoothed labels (Platt 1999, section
    2.2.2), which are finite for rows that are perfectly separated."""
    weight = np.ones(len(y)) if weight is None else weight
    centre = float(np.average(projected, weights=weight))
    spread = float(np.sqrt(np.average((projected - centre) ** 2, weights=weight)))
    unit = spread if spread > 0 else 1.0
    line = ((projected - centre) / unit)[:, None]
    counts = [float(weight[y == label].sum()) for label in (0, 1)]
    smoothed = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    (fitted,), _ = solve_logistic(line, (line**2).sum(0), smoothed, np.array([1e4]), weight, max_iter=100, tol=1e-12)
    slope = float(fitted[0]) / unit
    return slope, float(fitted[1]) - slope * centre


class _Directed:
    def _fit(self, X, y, sample_weight, **extras):
        direction = self._direct(X, y, sample_weight, **extras)
        slope, self.intercept_ = log_odds_line(X @ direction, y, sample_weight)
        if slope < 0:
            direction, slope = -direction, -slope
        self.direction_, self.slope_ = direction, slope

    def _decide(self, X):
        return X @ self.direction_ * self.slope_ + self.intercept_

    @property
    def direction(self):
        return self.direction_ * self.slope_

    def _direct(self, X, y, sample_weight, **extras) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not define _direct")


class DirectionProbe(_Directed, Probe):
    """A subclass finds a direction in `_direct`; where it points is settled by the labels that are fitted on."""


class UnweightedDirectionProbe(_Directed, UnweightedProbe):
    """The same, for methods without weights of rows."""
