"""Choose layer and regularisation, the same search for every arm: on the `select` split, or in folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from adapterprobe.errors import DataError
from adapterprobe.evaluate import statistics
from adapterprobe.evaluate.intervals import resample
from adapterprobe.probes.base import ConstantFeatures, Probe
from adapterprobe.probes.centring import SetCentring, scores_by_set
from adapterprobe.probes.registry import fit_settings, lookup, make, search_space
from adapterprobe.probes.rows import Folds, Rows, auroc_within, fold_masks


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
class Search:
    """How a probe's layer and setting are chosen.

    Args:
        strengths: of the penalty, that are tried.
        folds: 0: on `Rows.select`; k: by k folds of the groups that are fitted on.
        hold_out: of folds: `groups`, or `wordings`: each wording is left out too, and what is judged is asked in it about groups that
            are left out.
        rule: `best` or `one_se` (see `Selection.best`).
        centre: features are centred within `Rows.sets`, and rows of new sets in this way (see `scores_by_set`); None: they are not.
        scale: and divided by each set's spread.
    """

    strengths: Sequence[float]
    folds: int = 0
    hold_out: str = "groups"
    rule: str = "best"
    centre: str | None = None
    scale: bool = False


def select_probe(
    name: str,
    features: Callable[[int], np.ndarray],
    layers: Sequence[int],
    rows: Rows,
    search: Search,
    on_layer: Callable[[], object] = lambda: None,
    params: Mapping[str, object] | None = None,
) -> Selection:
    """Fit a probe at every layer in every setting on `rows.fit`, judge it on `rows.select`.

    With folds, it is judged inside `rows.fit` instead: each fold's groups (in each wording) by a fit on the others. The probe that is
    kept is fitted on all of `rows.fit` either way.

    Args:
        features: rows x features of a layer (or rows x depth x features), for all rows.
        params: fixed parameters of the probe; what they name is not searched over.

    Raises:
        DataError: features that are not finite (how many rows), one class only, or whatever the probe cannot be fitted on.
            Layers whose features are the same in all rows are at chance, unless all are such.
    """
    fits, tried, constant = [], 0, None
    settings = settings_of(name, list(search.strengths), params)
    folds = fold_masks(rows, search.folds, search.hold_out) if search.folds else None
    fit, labels = rows.fit, rows.labels
    for layer in layers:
        X = features(layer)
        bad = ~np.isfinite(X).reshape(len(X), -1).all(axis=1)
        if bad.any():
            raise DataError(
                f"layer {layer}: {bad.sum()} rows have NaN or infinite features (first: row {bad.argmax()})"
            )
        try:
            probes, centring = fitted_probes(
                name, settings, X, rows, fit, search, None if folds is None else folds.kept
            )
            tried += len(probes)
            values = np.full((1 if folds is None else len(folds.kept), len(settings)), np.nan)
            for place, probe in enumerate(probes):
                fold, setting = divmod(place, len(settings))
                judged = rows.select if folds is None else fit[folds.judged[fold]]
                kept = None if folds is None else fit[folds.kept[fold]]
                scores = scores_of(probe, X, rows, judged, search, centring, kept)
                values[fold, setting] = _auroc_of_fold(labels, scores, rows.conditions, judged, folds)
            means = _over_folds(values)
            # Ties go to the stronger penalty, which comes first.
            best = int(np.argmax(means))
            one_se = search.rule == "one_se"
            error = _standard_error(values[:, best], folds, probes[best], X, rows, search, centring) if one_se else 0.0
            if one_se:
                best = int(np.argmax(means >= means[best] - error))
            if folds is None:
                probe = probes[best]
            else:
                ((probe,), centring) = fitted_probes(name, [settings[best]], X, rows, fit, search)
        except ConstantFeatures as error:
            constant = error
            # Nothing to fit on is nothing known: chance, and never chosen.
            fits.append(LayerFit(layer, make(name, **settings[0]), 0.5, np.full(len(X), 0.5), constant=True))
            on_layer()
            continue
        except ValueError as error:
            raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {error}") from error
        everywhere = expit(scores_everywhere(probe, X, rows, search, centring))
        fits.append(LayerFit(layer, probe, float(means[best]), everywhere, float(error)))
        on_layer()
    if all(fit.constant for fit in fits):
        raise DataError(f"probe '{name}' cannot be fitted at layer {layer}: {constant}")
    return Selection(tuple(fits), tried, search.rule)


def fitted_probes(
    name: str,
    settings: list[dict],
    X: np.ndarray,
    rows: Rows,
    chosen: np.ndarray,
    search: Search,
    kept: np.ndarray | None = None,
) -> tuple[list[Probe], SetCentring | None]:
    """The probe in every setting (and fold) on some rows, and what their features were centred by, if they were.

    Args:
        chosen: indices of rows; kept: folds x chosen rows (see `Probe.fit_settings`).

    Raises:
        ValueError: whatever the probe cannot be fitted on.
    """
    extras: dict[str, Any] = rows.extras(chosen)
    if search.centre is None:
        return fit_settings(name, settings, X[chosen], rows.labels[chosen], kept, **extras), None
    assert rows.sets is not None
    padded = lookup(name).depth_of == "tokens"
    centring = SetCentring.of(X[chosen], rows.sets[chosen], search.scale, padded)
    return fit_settings(name, settings, X[chosen], rows.labels[chosen], kept, centring, **extras), centring


def scores_of(
    probe: Probe,
    X: np.ndarray,
    rows: Rows,
    judged: np.ndarray,
    search: Search,
    centring: SetCentring | None = None,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """Log-odds of some rows, as of sets that nothing is known of, centred in the way that the search has, if it has one.

    Args:
        centring: of the sets that were fitted on. kept: the rows that a fold was fitted on, so that nothing of the others is known (None:
            all).
    """
    if probe.needs_polarity:
        assert rows.polarity is not None
        probe = probe.told(rows.polarity[judged])
    if search.centre is None or centring is None:
        return probe.decision_function(X[judged])
    assert rows.sets is not None
    if kept is not None:
        here = set(np.unique(rows.sets[kept]).tolist()) & set(centring.sets)
        known = [centring.sets[name] for name in sorted(here)]
        if known:
            spreads = [spread for _, spread in known if spread is not None]
            centre = np.mean([mean for mean, _ in known], axis=0)
            probe = probe.centred_by(
                replace(centring, centre=centre, scale=np.mean(spreads, axis=0) if spreads else None)
            )
    return scores_by_set(probe, X[judged], rows.sets[judged], search.centre, rows.groups[judged])


def scores_everywhere(
    probe: Probe, X: np.ndarray, rows: Rows, search: Search, centring: SetCentring | None
) -> np.ndarray:
    """Log-odds of all rows: of those that are fitted on, of those that are selected by, and of all others, each set by itself in each of the
    three, so that none is centred by rows of another part."""
    part = np.zeros(len(X), int)
    part[rows.select], part[rows.fit] = 1, 2
    scores = np.empty(len(X))
    for which in np.unique(part):
        here = np.flatnonzero(part == which)
        scores[here] = scores_of(probe, X, rows, here, search, centring)
    return scores


def _auroc_of_fold(
    labels: np.ndarray, scores: np.ndarray, conditions: np.ndarray, judged: np.ndarray, folds: Folds | None
) -> float:
    """NaN where a cell of groups and wordings is too small to hold both classes; elsewhere that is an error."""
    try:
        return auroc_within(labels[judged], scores, conditions[judged])
    except DataError:
        if folds is None or not folds.crossed:
            raise
        return float("nan")


def _over_folds(values: np.ndarray) -> np.ndarray:
    """Mean over folds that could be judged."""
    if np.isnan(values).all(0).any():
        raise DataError("the rows that layers are chosen by have one class only; use more groups, or fewer folds")
    return np.nanmean(values, 0)


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
    by_fold: np.ndarray,
    folds: Folds | None,
    probe: Probe,
    X: np.ndarray,
    rows: Rows,
    search: Search,
    centring: SetCentring | None,
    resamples: int = 200,
) -> float:
    """Of the AUROC that a setting is chosen by: over folds, or by resampling the groups of `select`."""
    if folds is not None:
        judged = by_fold[np.isfinite(by_fold)]
        return float(judged.std(ddof=1) / np.sqrt(len(judged))) if len(judged) > 1 else 0.0
    judged = rows.select
    scores, labels = scores_of(probe, X, rows, judged, search, centring), rows.labels[judged]
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
