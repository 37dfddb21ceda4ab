"""Two directions, truth and truth times polarity, weighed by the polarity that the state itself shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register
from adapterprobe.probes.shared_fits import SharedFits


@register("two_directions")
class TwoDirectionsProbe(SharedFits):
    """Logistic regressions of states, centred by sets, on truth and on truth times polarity give two directions t_G and t_P (those of Bürger,
    Hamprecht & Nadler 2024, section 3, who find them by least squares). A classifier of polarity tells, from the same state, which way a question is asked; logistic regression on the
    projection on t_G and on that on t_P, turned by the told polarity, is the probe.

    TTPD leaves t_P out, which is where a model keeps whether the *claim* is true: a model that knows the claim, and shows how it is asked
    about, is read aright here even where it has not put the two together. Not linear. Without `polarity`, or with one polarity only, there is
    t_G alone.

    Args:
        C: inverse penalty of the polarity classifier and of the regressions that find t_G and t_P.
    """

    wants = ("polarity", "sets")

    def __init__(self, C: float = 0.01):
        self.C = C

    mean_: np.ndarray
    general_: np.ndarray
    turned_: np.ndarray
    polarity_: np.ndarray
    polarity_intercept_: float
    weights_: np.ndarray
    intercept_: float

    @classmethod
    def _fit_together(cls, probes: Sequence[TwoDirectionsProbe], X, y, polarity=None, sets=None) -> None:
        """Fit probes that differ in C alone: each of the three regressions is one problem for all of them."""
        settings = [{"C": probe.C} for probe in probes]
        both = polarity is not None and len(np.unique(polarity)) == 2
        way = np.ones(len(X)) if polarity is None else np.asarray(polarity, float)
        sets = way if sets is None else sets
        centred, mean = SetCentring.of(X, sets).apply(X, sets), X.mean(0)
        general = _logistic(settings, centred, y)
        # The claim's truth is the answer's times the polarity.
        turned = _logistic(settings, centred, (2.0 * y - 1) * way > 0) if both else []
        ways = _logistic(settings, X, way) if both else []
        for place, probe in enumerate(probes):
            probe.mean_, probe.general_ = mean, general[place].direction
            if both:
                probe.turned_, probe.polarity_ = turned[place].direction, ways[place].direction
                probe.polarity_intercept_ = float(ways[place].decision_function(np.zeros((1, X.shape[1])))[0])
            seen = probe._projections(X, both)
            last = LogisticProbe(C=1e4).fit(seen, y)
            probe.weights_ = last.direction
            probe.intercept_ = float(last.decision_function(np.zeros((1, seen.shape[1])))[0])

    def _projections(self, X: np.ndarray, both: bool) -> np.ndarray:
        """Rows x 1 or 2: on truth, and on truth times polarity turned by the polarity that is told."""
        features = [X @ self.general_]
        if both:
            features.append(self._way(X) * ((X - self.mean_) @ self.turned_))
        return np.column_stack(features)

    def _way(self, X: np.ndarray) -> np.ndarray:
        """The polarity that a state shows, between -1 and 1."""
        return np.tanh((X @ self.polarity_ + self.polarity_intercept_) / 2)

    def _decide(self, X):
        return self._projections(X, len(self.weights_) == 2) @ self.weights_ + self.intercept_


def _logistic(settings: list[dict], X: np.ndarray, y: np.ndarray) -> list[LogisticProbe]:
    """One probe for each setting."""
    return cast(list[LogisticProbe], LogisticProbe.fit_settings(settings, X, y))
