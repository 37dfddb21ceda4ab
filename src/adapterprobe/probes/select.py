"""Choose layer and regularisation on the `select` split, the same search for every arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from adapterprobe.errors import DataError
from adapterprobe.probes.base import Probe, fit_settings, search_space


@dataclass(frozen=True)
class LayerFit:
    """The best setting of a probe at one layer, with its scores for every row."""

    layer: int
    probe: Probe
    select_auroc: float
    scores: np.ndarray


@dataclass(frozen=True)
class Selection:
    """What a search found: one fit per layer, and which layer won on `select`."""

    fits: tuple[LayerFit, ...]
    tried: int

    @property
    def best(self) -> LayerFit:
        """Highest AUROC on `select`; ties go to the earlier layer."""
        return max(self.fits, key=lambda fit: (fit.select_auroc, -fit.layer))


def auroc_within(labels: np.ndarray, scores: np.ndarray, conditions: np.ndarray) -> float:
    """AUROC within each condition, averaged: pooling would reward telling conditions apart."""
    parts = [
        roc_auc_score(labels[conditions == c], scores[conditions == c])
        for c in np.unique(conditions)
        if len(np.unique(labels[conditions == c])) == 2
    ]
    if not parts:
        raise DataError("the select split has one class only; use more groups")
    return float(np.mean(parts))


def select_probe(
    name: str,
    features: Callable[[int], np.ndarray],
    layers: Sequence[int],
    labels: np.ndarray,
    fit_rows: np.ndarray,
    select_rows: np.ndarray,
    conditions: np.ndarray,
    strengths: list[float],
    on_layer: Callable[[], None] = lambda: None,
) -> Selection:
    """Fit a probe at every layer in every setting on `fit_rows`, judge it on `select_rows`.

    Args:
        features: rows x features of a layer, for all rows.
        labels: 0 or 1 for all rows; only those of the two splits are looked at.
        fit_rows, select_rows: indices of rows.

    Raises:
        DataError: features that are not finite (how many rows), or one class only.
    """
    fits, tried = [], 0
    settings = search_space(name, strengths)
    for layer in layers:
        X = features(layer)
        bad = ~np.isfinite(X).all(axis=1)
        if bad.any():
            raise DataError(
                f"layer {layer}: {bad.sum()} rows have NaN or infinite features (first: row {bad.argmax()})"
            )
        try:
            probes = fit_settings(name, settings, X[fit_rows], labels[fit_rows])
        except ValueError as error:
            raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {error}") from error
        tried += len(probes)
        values = [
            auroc_within(labels[select_rows], probe.decision_function(X[select_rows]), conditions[select_rows])
            for probe in probes
        ]
        # Ties go to the stronger penalty, which comes first.
        best = int(np.argmax(values))
        fits.append(LayerFit(layer, probes[best], values[best], probes[best].predict_proba(X)[:, 1]))
        on_layer()
    return Selection(tuple(fits), tried)
