"""Do thresholds hold on data never trained on? Four ways of fixing one, and the rate of false alarms that each then has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.data.items import topic_of
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.detectors.search_cache import SearchJob
from adapterprobe.evaluate.schema import main_axis
from adapterprobe.evaluate.thresholds import Scored, threshold_records
from adapterprobe.probes.select import fitted_probes, fold_masks, scores_of
from adapterprobe.progress import bar

FOLDS = 5
"""Of the groups that are fitted on, to score them by fits without them."""
UNTRAINED = ("probe-train", "calibrate")
"""Splits of a left-out relation whose rows fix its threshold: no adapter was trained or stopped on them."""


def thresholds(run: FittedRun) -> Findings:
    """A record per arm (the main probe, the lowest seed), data set and way; see `threshold_records`."""
    config = run.config
    frame = run.predictions
    frame = frame[(frame["axis"] == main_axis(config.axes)) & (frame["seed"] == run.lowest_seed)]
    frame = frame[frame["probe"].isna() | (frame["probe"] == run.main_probe)]
    records: list[dict] = []
    parts = list(frame.groupby("arm", sort=False, observed=True))
    with bar(len(parts), "thresholds", unit="arm") as progress:
        for arm, rows in parts:
            calibrate = _scored(rows[rows["split"] == "calibrate"])
            relations = _left_out(run, cast(str, arm), rows)
            fits = run.fits_of(cast(str, arm), run.main_probe, run.lowest_seed)
            pooled = cross_fitted(run, fits[0]) if fits else None
            for key, part in rows[rows["split"] != "calibrate"].groupby(["split", "dataset"], sort=False):
                split, dataset = cast(tuple[str, str], key)
                where: dict[str, Any] = {"arm": arm, "split": split, "dataset": dataset}
                settings = config.evaluate
                found = threshold_records(
                    calibrate, _scored(part), settings.false_positive_rate, settings.base_rate, relations, pooled
                )
                records += [where | record for record in found]
            progress.update()
    return {"probes.json": {"thresholds": records}}


def _scored(rows: pd.DataFrame) -> Scored:
    return Scored(rows["score"].to_numpy(float), rows["label"].to_numpy(int), rows["group"].to_numpy(str))


def _left_out(run: FittedRun, arm: str, rows: pd.DataFrame) -> dict[str, Scored]:
    """By training relation, its rows as a detector scores them that was fitted on the others: at the layer and setting of the arm's own.
    A model's own answer, and a head, are fitted on no relation in particular: their rows of `calibrate`."""
    fits = run.fits_of(arm, run.main_probe, run.lowest_seed)
    if not fits:
        mine = rows[rows["split"] == "calibrate"]
        topics = mine["dataset"].map(topic_of)
        return {str(name): _scored(part) for name, part in mine.groupby(topics)}
    return relations_left_out(run, fits[0])


def cross_fitted(run: FittedRun, fit: ArmFit) -> Scored:
    """All rows that nothing was trained on, by the detector of one probe arm: those of `calibrate` as they are, those that it was fitted on by fits without their group, at its layer and setting."""
    splits = run.column(lambda p: p.split)
    fitted, best, spec = fit.rows.fit, fit.selection.best, run.probe_configs[fit.probe]
    how = SearchJob(spec, run.feature_specs[fit.probe], fit.rows, run.config.select).how
    free = splits == "calibrate"
    rows, scores = [np.flatnonzero(free)], [best.scores[free]]
    # No adapter was trained on these.
    untrained = splits[fitted] != "adapter-train"
    X = fit.features(best.layer)
    groups = len(np.unique(fit.rows.groups[fitted]))
    for kept in fold_masks(fit.rows, min(FOLDS, groups)).kept if groups >= 2 else []:
        mine = fitted[~kept & untrained]
        if not len(mine) or len(np.unique(fit.rows.labels[fitted[kept]])) < 2:
            continue
        try:
            ((probe,), centring) = fitted_probes(spec.probe, [best.probe.get_params()], X, fit.rows, fitted[kept], how)
        except ValueError:
            # Too few rows are left for this probe.
            continue
        rows.append(mine)
        scores.append(expit(scores_of(probe, X, fit.rows, mine, how, centring)))
    every = np.concatenate(rows)
    return Scored(np.concatenate(scores), fit.rows.labels[every], fit.rows.groups[every])


def relations_left_out(run: FittedRun, fit: ArmFit) -> dict[str, Scored]:
    """The same for one probe arm; empty with fewer than two training relations. Adapters are those of the run: they were trained on other
    groups of the relation that is left out."""
    topics = run.column(lambda p: topic_of(p.example.dataset))
    untrained = np.isin(run.column(lambda p: p.split), UNTRAINED)
    fitted = fit.rows.fit
    names = np.unique(topics[fitted])
    if len(names) < 2:
        return {}
    best, spec = fit.selection.best, run.probe_configs[fit.probe]
    how = SearchJob(spec, run.feature_specs[fit.probe], fit.rows, run.config.select).how
    X = fit.features(best.layer)
    found = {}
    for name in names:
        others = fitted[topics[fitted] != name]
        # Whoever was fitted on under another relation tells nothing of how a threshold carries over.
        new = np.flatnonzero(
            (topics == name) & untrained & ~np.isin(fit.rows.groups, np.unique(fit.rows.groups[others]))
        )
        if len(np.unique(fit.rows.labels[others])) < 2 or not len(new):
            continue
        rows = replace(fit.rows, fit=others)
        try:
            ((probe,), centring) = fitted_probes(spec.probe, [best.probe.get_params()], X, rows, others, how)
        except ValueError:
            continue
        scores = expit(scores_of(probe, X, rows, new, how, centring))
        found[str(name)] = Scored(scores, fit.rows.labels[new], fit.rows.groups[new])
    return found
