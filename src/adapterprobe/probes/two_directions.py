"""Two directions, truth and truth times polarity, weighed by the polarity that the state itself shows."""

from __future__ import annotations

import copy
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
    projection on t_G and on that on t_P, turned by that polarity, is the probe.

    TTPD leaves t_P out, which is where a model keeps whether the *claim* is true: a model that knows the claim, and shows how it is asked
    about, is read aright here even where it has not put the two together. Not linear. Without `polarity`, or with one polarity only, there is
    t_G alone.

    Args:
        C: inverse penalty of the polarity classifier and of the regressions that find t_G and t_P.
        polarity: `shown`: the state tells which way a question is asked; `told`: whoever scores says so (`told(polarity)`; runs know it of their
            questions), which takes the reading of the way of asking out of the reading of the truth.

    Raises:
        ValueError: another `polarity`, or rows that are scored untold.
    """

    wants = ("polarity", "sets")

    def __init__(self, C: float = 0.01, polarity: str = "shown"):
        self.C = C
        self.polarity = polarity

    _told: np.ndarray | None = None
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
        if probes[0].polarity not in ("shown", "told"):
            raise ValueError(f"polarity of two_directions is shown or told, got '{probes[0].polarity}'")
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
            told = way if probe.polarity == "told" else None
            seen = probe._projections(X, both, told)
            last = LogisticProbe(C=1e4).fit(seen, y)
            probe.weights_ = last.direction
            probe.intercept_ = float(last.decision_function(np.zeros((1, seen.shape[1])))[0])

    @property
    def needs_polarity(self) -> bool:
        return self.polarity == "told" and len(self.weights_) == 2

    def told(self, polarity: np.ndarray) -> TwoDirectionsProbe:
        found = copy.copy(self)
        found._told = np.asarray(polarity, float)
        return found

    def _projections(self, X: np.ndarray, both: bool, told: np.ndarray | None) -> np.ndarray:
        """Rows x 1 or 2: on truth, and on truth times polarity turned by the polarity that is told, or else shown."""
        features = [X @ self.general_]
        if both:
            way = self._way(X) if told is None else told
            features.append(way * ((X - self.mean_) @ self.turned_))
        return np.column_stack(features)

    def _way(self, X: np.ndarray) -> np.ndarray:
        """The polarity that a state shows, between -1 and 1."""
        return np.tanh((X @ self.polarity_ + self.polarity_intercept_) / 2)

    def _decide(self, X):
        if self.needs_polarity and (self._told is None or len(self._told) != len(X)):
            given = "none" if self._told is None else f"{len(self._told)}"
            raise ValueError(
                f"two_directions was fitted to be told the polarity of every row, got {given} for {len(X)}; give probe.told(polarity)"
            )
        told = self._told if self.needs_polarity else None
        return self._projections(X, len(self.weights_) == 2, told) @ self.weights_ + self.intercept_


def _logistic(settings: list[dict], X: np.ndarray, y: np.ndarray) -> list[LogisticProbe]:
    """One probe for each setting."""
    return cast(list[LogisticProbe], LogisticProbe.fit_settings(settings, X, y))
