"""A stacked ensemble over layers (Wolpert 1992; Breiman 1996, "Stacked regressions"): no layer has to be chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold, KFold

from adapterprobe.probes.depth import Depth
from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register
from adapterprobe.probes.shared_fits import SharedFits

FOLDS = 5


@register("stack")
class StackProbe(Depth, SharedFits):
    """A logistic probe on each layer, and a logistic regression on what they say of rows that they were not fitted on.

    Weights of layers are not negative (Breiman 1996): a layer may be left out, and none is turned round.

    Args:
        depth: layers that two-dimensional X holds side by side (1: a network on one layer).
        C: inverse penalty of the layers' probes. blend: of the regression on top.
    """

    depth_of = "layers"
    wants = ("groups",)
    most_layers = None

    def __init__(self, depth: int = 1, C: float = 0.01, blend: float = 1.0):
        self.depth = depth
        self.C = C
        self.blend = blend

    coef_: np.ndarray
    intercept_: float
    layer_weights_: np.ndarray

    @classmethod
    def _fit_together(cls, probes: Sequence[StackProbe], X, y, groups=None) -> None:
        """Fit probes that differ in C and blend alone: folds and penalties of a layer are one problem."""
        depth = probes[0].depth_
        parts = X.reshape(len(X), depth, -1)
        kept = cls._folds(y, groups)
        everywhere = np.vstack([kept, np.ones((1, len(X)), bool)])
        strengths = [{"C": probe.C} for probe in probes]
        said = np.zeros((len(probes), len(X), depth))
        layers: list[list[tuple[np.ndarray, float]]] = [[] for _ in probes]
        for place in range(depth):
            here = parts[:, place]
            if (here[0] == here).all():
                # Such as the first state of prompts that end alike: nothing to learn from.
                for mine in layers:
                    mine.append((np.zeros(here.shape[1]), 0.0))
                continue
            fitted = LogisticProbe.fit_settings(strengths, here, y, everywhere)
            for number, probe in enumerate(fitted):
                fold, setting = divmod(number, len(probes))
                if fold < len(kept):
                    said[setting][~kept[fold], place] = probe.decision_function(here[~kept[fold]])
                else:
                    start = float(probe.decision_function(np.zeros((1, here.shape[1])))[0])
                    layers[setting].append((probe.direction, start))
        for probe, own, mine in zip(probes, said, layers, strict=True):
            probe.layer_weights_, bias = _blended(own, y, probe.blend)
            probe.coef_ = np.concatenate([w * coef for w, (coef, _) in zip(probe.layer_weights_, mine, strict=True)])
            probe.intercept_ = bias + float(sum(w * b for w, (_, b) in zip(probe.layer_weights_, mine, strict=True)))

    @staticmethod
    def _folds(y: np.ndarray, groups) -> np.ndarray:
        """Folds x rows, True where a fold fits; a group is left out whole, and both classes are fitted on."""
        units = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        count = min(FOLDS, len(np.unique(units)))
        if count >= 2:
            if groups is None:
                parts = KFold(count, shuffle=True, random_state=0).split(y)
            else:
                parts = GroupKFold(count).split(y, y, units)
            kept = np.stack([np.isin(np.arange(len(y)), fit) for fit, _ in parts])
            if all(len(np.unique(y[fit])) == 2 for fit in kept):
                return kept
        raise ValueError(
            f"{len(y)} rows of {len(np.unique(units))} groups leave no folds with both classes; give it more rows"
        )

    def _decide(self, X):
        return X @ self.coef_ + self.intercept_

    @property
    def direction(self):
        return self.coef_


def _blended(said: np.ndarray, y: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """(weights of the columns, none negative, intercept) of a logistic regression with an L2 penalty."""
    spread = said.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    Z = said / spread

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margins = Z @ beta[:-1] + beta[-1]
        excess = expit(margins) - y
        value = float((np.logaddexp(0, margins) - y * margins).sum() + (beta[:-1] ** 2).sum() / (2 * C))
        return value, np.append(Z.T @ excess + beta[:-1] / C, excess.sum())

    start = np.append(np.full(Z.shape[1], 1 / Z.shape[1]), 0.0)
    bounds = [(0.0, None)] * Z.shape[1] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1] / spread, float(found[-1])
