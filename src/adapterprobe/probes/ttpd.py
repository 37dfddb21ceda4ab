"""Training of truth and polarity direction (Bürger, Hamprecht & Nadler 2024, section 5)."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register


@register("ttpd")
class TtpdProbe(UnweightedProbe):
    """Least squares of centred states on truth and truth times polarity gives a general truth direction t_G; a classifier of
    polarity gives a second one; logistic regression in these two dimensions is the probe.

    With `sets` (data set x polarity), each is centred by its own mean before t_G is found, as the authors have it; the polarity classifier
    and the last regression see states as they are. Without `sets`, all are centred by one mean. Without `polarity`, or with one polarity only, there is t_G alone: half the difference of the class means. The polarity
    classifier is penalised (the paper's is not, which has no unique answer where features outnumber rows).

    Args:
        C: inverse penalty of the polarity classifier.
    """

    wants = ("polarity", "sets")

    def __init__(self, C: float = 0.01):
        self.C = C

    def _fit(self, X, y, sample_weight, polarity=None, sets=None):
        self.mean_ = X.mean(0)
        truth = 2.0 * y - 1
        both = polarity is not None and len(np.unique(polarity)) == 2
        design = np.column_stack([truth, truth * polarity]) if both else truth[:, None]
        # The paper regresses on balanced data; centring the design gives the same where labels are not balanced.
        sets = np.zeros(len(X), int) if sets is None else sets
        design = SetCentring.of(design, sets).apply(design, sets)
        found = np.linalg.lstsq(design, SetCentring.of(X, sets).apply(X, sets), rcond=None)[0]
        directions = [found[0]]
        if both:
            directions.append(LogisticProbe(C=self.C).fit(X, polarity).direction)
        self.directions_ = np.stack(directions)
        plane = (X - self.mean_) @ self.directions_.T
        last = LogisticProbe(C=1e4).fit(plane, y)
        self.coef_ = last.direction @ self.directions_
        self.intercept_ = float(last.decision_function(np.zeros((1, len(directions))))[0])

    def _decide(self, X):
        return (X - self.mean_) @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_
