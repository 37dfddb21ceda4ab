"""Choose layer and regularisation, the same search for every arm: on the `select` split, or in folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from adapterprobe.errors import DataError
from adapterprobe.probes.base import Probe, fit_settings, search_space


@dataclass(frozen=True)
class LayerFit:
    """The best setting of a probe at one layer, with its scores for every row.

    `select_auroc` is what it was chosen by: AUROC on `select`, or the mean over folds.
    """

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
        """Highest `select_auroc`; ties go to the earlier layer."""
        return max(self.fits, key=lambda fit: (fit.select_auroc, -fit.layer))


def auroc_within(labels: np.ndarray, scores: np.ndarray, conditions: np.ndarray) -> float:
    """AUROC within each condition, averaged: pooling would reward telling conditions apart."""
    parts = [
        roc_auc_score(labels[conditions == c], scores[conditions == c])
        for c in np.unique(conditions)
        if len(np.unique(labels[conditions == c])) == 2
    ]
    if not parts:
        raise DataError("the rows that layers are chosen by have one class only; use more groups, or fewer folds")
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
    groups: np.ndarray | None = None,
    folds: int = 0,
) -> Selection:
    """Fit a probe at every layer in every setting on `fit_rows`, judge it on `select_rows`.

    With `folds`, it is judged inside `fit_rows` instead: each fold's groups by a fit on the others. The probe that is
    kept is fitted on all of `fit_rows` either way.

    Args:
        features: rows x features of a layer, for all rows.
        labels: 0 or 1 for all rows; only those of the two splits are looked at.
        fit_rows, select_rows: indices of rows.
        groups: group of every row, needed for folds.

    Raises:
        DataError: features that are not finite (how many rows), or one class only.
    """
    fits, tried = [], 0
    settings = search_space(name, strengths)
    masks = _folds(fit_rows, labels, groups, folds) if folds else None
    for layer in layers:
        X = features(layer)
        bad = ~np.isfinite(X).all(axis=1)
        if bad.any():
            raise DataError(
                f"layer {layer}: {bad.sum()} rows have NaN or infinite features (first: row {bad.argmax()})"
            )
        try:
            probes = fit_settings(name, settings, X[fit_rows], labels[fit_rows], masks)
            tried += len(probes)
            values = np.zeros(len(settings))
            for place, probe in enumerate(probes):
                rows = select_rows if masks is None else fit_rows[~masks[place // len(settings)]]
                found = auroc_within(labels[rows], probe.decision_function(X[rows]), conditions[rows])
                values[place % len(settings)] += found / (1 if masks is None else len(masks))
            # Ties go to the stronger penalty, which comes first.
            best = int(np.argmax(values))
            if masks is None:
                probe = probes[best]
            else:
                (probe,) = fit_settings(name, [settings[best]], X[fit_rows], labels[fit_rows])
        except ValueError as error:
            raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {error}") from error
        fits.append(LayerFit(layer, probe, float(values[best]), probe.predict_proba(X)[:, 1]))
        on_layer()
    return Selection(tuple(fits), tried)


def _folds(fit_rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int) -> np.ndarray:
    """Folds x rows of `fit_rows`: True where a fold fits on the row. A group is held out whole.

    Raises:
        DataError: fewer groups than folds.
    """
    mine = groups[fit_rows]
    if len(np.unique(mine)) < folds:
        raise DataError(
            f"{folds} folds need at least as many groups, {len(np.unique(mine))} are fitted on; lower select.folds"
        )
    split = GroupKFold(folds).split(fit_rows, labels[fit_rows], mine)
    return np.stack([np.isin(np.arange(len(fit_rows)), train) for train, _ in split])
