"""Two directions, truth and truth times polarity, weighed by the polarity that the state itself shows."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register


@register("two_directions")
class TwoDirectionsProbe(UnweightedProbe):
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

    def _fit(self, X, y, sample_weight, polarity=None, sets=None):
        self.mean_ = X.mean(0)
        both = polarity is not None and len(np.unique(polarity)) == 2
        polarity = np.ones(len(X)) if polarity is None else np.asarray(polarity, float)
        truth = 2.0 * y - 1
        sets = polarity if sets is None else sets
        centred = SetCentring.of(X, sets).apply(X, sets)
        general = LogisticProbe(C=self.C).fit(centred, y)
        self.general_ = general.direction
        features = [X @ self.general_]
        if both:
            # The claim's truth is the answer's times the polarity.
            self.turned_ = LogisticProbe(C=self.C).fit(centred, truth * polarity > 0).direction
            way = LogisticProbe(C=self.C).fit(X, polarity)
            self.polarity_, self.polarity_intercept_ = (
                way.direction,
                float(way.decision_function(np.zeros((1, X.shape[1])))[0]),
            )
            features.append(self._way(X) * ((X - self.mean_) @ self.turned_))
        last = LogisticProbe(C=1e4).fit(np.column_stack(features), y)
        self.weights_ = last.direction
        self.intercept_ = float(last.decision_function(np.zeros((1, len(features))))[0])

    def _way(self, X: np.ndarray) -> np.ndarray:
        """The polarity that a state shows, between -1 and 1."""
        return np.tanh((X @ self.polarity_ + self.polarity_intercept_) / 2)

    def _decide(self, X):
        features = [X @ self.general_]
        if len(self.weights_) == 2:
            features.append(self._way(X) * ((X - self.mean_) @ self.turned_))
        return np.column_stack(features) @ self.weights_ + self.intercept_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
