"""Choose layer and regularisation, the same search for every arm: on the `select` split, or in folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from adapterprobe.errors import DataError
from adapterprobe.evaluate import statistics
from adapterprobe.evaluate.intervals import resample
from adapterprobe.probes.base import ConstantFeatures, Probe
from adapterprobe.probes.registry import fit_settings, make, search_space


@dataclass(frozen=True)
class LayerFit:
    """The best setting of a probe at one layer, with its scores for every row.

    `select_auroc` is what it was chosen by: AUROC on `select`, or the mean over folds.
    """

    layer: int
    probe: Probe
    select_auroc: float
    scores: np.ndarray
    error: float = 0.0
    """Standard error of `select_auroc`, over folds or over groups of `select`."""
    constant: bool = False
    """Whether the features of this layer are the same in all rows, so that nothing is fitted."""


@dataclass(frozen=True)
class Selection:
    """What a search found: one fit per layer, and which layer won on `select`."""

    fits: tuple[LayerFit, ...]
    tried: int
    rule: str = "best"

    @property
    def best(self) -> LayerFit:
        """Highest `select_auroc`, ties to the earlier layer; by the rule `one_se` the earliest layer within one standard
        error of that."""
        fits = [fit for fit in self.fits if not fit.constant]
        top = max(fits, key=lambda fit: (fit.select_auroc, -fit.layer))
        if self.rule == "best":
            return top
        return min((fit for fit in fits if fit.select_auroc >= top.select_auroc - top.error), key=lambda fit: fit.layer)


@dataclass(frozen=True)
class Rows:
    """What all probes of a search are fitted on and judged by.

    Args:
        labels: 0 or 1 for all rows; only those of the two splits are looked at.
        fit, select: indices of rows.
        conditions, groups, pairs, polarity: of all rows; the last two for probes that want them.
        weights: how much each row counts in fitting, where they differ.
        token_labels: rows x tokens, 0 or 1, for probes over tokens that want them, where parts of a row are marked.
    """

    labels: np.ndarray
    fit: np.ndarray
    select: np.ndarray
    conditions: np.ndarray
    groups: np.ndarray
    pairs: np.ndarray | None = None
    polarity: np.ndarray | None = None
    weights: np.ndarray | None = None
    token_labels: np.ndarray | None = None

    def extras(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Pairs, polarity, weights and labels of tokens of some rows, where there are any."""
        given = {
            "pairs": self.pairs,
            "polarity": self.polarity,
            "sample_weight": self.weights,
            "token_labels": self.token_labels,
        }
        return {name: value[rows] for name, value in given.items() if value is not None}


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
    rows: Rows,
    strengths: list[float],
    on_layer: Callable[[], object] = lambda: None,
    folds: int = 0,
    rule: str = "best",
    params: Mapping[str, object] | None = None,
) -> Selection:
    """Fit a probe at every layer in every setting on `rows.fit`, judge it on `rows.select`.

    With `folds`, it is judged inside `rows.fit` instead: each fold's groups by a fit on the others. The probe that is
    kept is fitted on all of `rows.fit` either way.

    Args:
        features: rows x features of a layer (or rows x depth x features), for all rows.
        params: fixed parameters of the probe; what they name is not searched over.

    Raises:
        DataError: features that are not finite (how many rows), one class only, or whatever the probe cannot be fitted on.
            Layers whose features are the same in all rows are at chance, unless all are such.
    """
    fits, tried, constant = [], 0, None
    settings = settings_of(name, strengths, params)
    masks = fold_masks(rows, folds) if folds else None
    fit, labels = rows.fit, rows.labels
    for layer in layers:
        X = features(layer)
        bad = ~np.isfinite(X).reshape(len(X), -1).all(axis=1)
        if bad.any():
            raise DataError(
                f"layer {layer}: {bad.sum()} rows have NaN or infinite features (first: row {bad.argmax()})"
            )
        try:
            probes = fit_settings(name, settings, X[fit], labels[fit], masks, **rows.extras(fit))
            tried += len(probes)
            values = np.zeros((1 if masks is None else len(masks), len(settings)))
            for place, probe in enumerate(probes):
                fold, setting = divmod(place, len(settings))
                judged = rows.select if masks is None else fit[~masks[fold]]
                scores = probe.decision_function(X[judged])
                values[fold, setting] = auroc_within(labels[judged], scores, rows.conditions[judged])
            means = values.mean(0)
            # Ties go to the stronger penalty, which comes first.
            best = int(np.argmax(means))
            error = _standard_error(values[:, best], masks, probes[best], X, rows) if rule == "one_se" else 0.0
            if rule == "one_se":
                best = int(np.argmax(means >= means[best] - error))
            if masks is None:
                probe = probes[best]
            else:
                (probe,) = fit_settings(name, [settings[best]], X[fit], labels[fit], **rows.extras(fit))
        except ConstantFeatures as error:
            constant = error
            # Nothing to fit on is nothing known: chance, and never chosen.
            fits.append(LayerFit(layer, make(name, **settings[0]), 0.5, np.full(len(X), 0.5), constant=True))
            on_layer()
            continue
        except ValueError as error:
            raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {error}") from error
        fits.append(LayerFit(layer, probe, float(means[best]), probe.predict_proba(X)[:, 1], float(error)))
        on_layer()
    if all(fit.constant for fit in fits):
        raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {constant}")
    return Selection(tuple(fits), tried, rule)


def settings_of(name: str, strengths: list[float], params: Mapping[str, object] | None = None) -> list[dict]:
    """Settings that a search tries, fixed parameters put in.

    Raises:
        ConfigError: unknown probe or parameter.
    """
    params = dict(params or {})
    make(name, **params)
    found: list[dict] = []
    for setting in search_space(name, strengths):
        whole = setting | params
        if whole not in found:
            found.append(whole)
    return found


def _standard_error(
    by_fold: np.ndarray, masks: np.ndarray | None, probe: Probe, X: np.ndarray, rows: Rows, resamples: int = 200
) -> float:
    """Of the AUROC that a setting is chosen by: over folds, or by resampling the groups of `select`."""
    if masks is not None:
        return float(by_fold.std(ddof=1) / np.sqrt(len(by_fold)))
    judged = rows.select
    scores, labels = probe.decision_function(X[judged]), rows.labels[judged]
    names, codes = np.unique(rows.groups[judged], return_inverse=True)
    parts = [
        statistics.auroc(labels[here], scores[here], codes[here], len(names))
        for here in (rows.conditions[judged] == condition for condition in np.unique(rows.conditions[judged]))
    ]
    # A resample may lack a class in some condition: it is averaged over the others.
    by_condition = np.stack([part(resample(len(names), resamples, 0)) for part in parts])
    counted = np.isfinite(by_condition).sum(0)
    found = np.nansum(by_condition, 0)[counted > 0] / counted[counted > 0]
    return float(np.std(found, ddof=1)) if len(found) > 1 else 0.0


def fold_masks(rows: Rows, folds: int) -> np.ndarray:
    """Folds x rows of `rows.fit`: True where a fold fits on the row. A group is held out whole.

    Raises:
        DataError: fewer groups than folds.
    """
    mine = rows.groups[rows.fit]
    if len(np.unique(mine)) < folds:
        raise DataError(
            f"{folds} folds need at least as many groups, {len(np.unique(mine))} are fitted on; lower select.folds"
        )
    split = GroupKFold(folds).split(rows.fit, rows.labels[rows.fit], mine)
    return np.stack([np.isin(np.arange(len(rows.fit)), train) for train, _ in split])
