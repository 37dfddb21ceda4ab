"""Do thresholds hold on data never trained on? Five ways of fixing one, and the rate of false alarms that each then has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.refits import refit
from adapterprobe.data.items import topic_of
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.evaluate.schema import main_axis
from adapterprobe.evaluate.thresholds import Scored, threshold_records
from adapterprobe.probes.rows import fold_masks
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
            calibrate_rows = rows[rows["split"] == "calibrate"]
            calibrate = _scored(calibrate_rows)
            fits = run.fits_of(cast(str, arm), run.main_probe, run.lowest_seed)
            relations = relations_left_out(run, fits[0]) if fits else _by_relation(calibrate_rows)
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


def _by_relation(calibrate: pd.DataFrame) -> dict[str, Scored]:
    """By training relation, the rows of a model's own answer, or a head, which are fitted on no relation in particular."""
    topics = calibrate["dataset"].map(topic_of)
    return {str(name): _scored(part) for name, part in calibrate.groupby(topics)}


def cross_fitted(run: FittedRun, fit: ArmFit) -> Scored:
    """All rows that nothing was trained on, by the detector of one probe arm: those of `calibrate` as they are, those that
    it was fitted on by fits without their group, at its layer and setting."""
    splits = run.column(lambda p: p.split)
    fitted, best = fit.rows.fit, fit.selection.best
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
            without = refit(run, fit, X, fit.rows, fitted[kept])
        except ValueError:
            # Too few rows are left for this probe.
            continue
        rows.append(mine)
        scores.append(expit(without.log_odds(mine)))
    every = np.concatenate(rows)
    return Scored(np.concatenate(scores), fit.rows.labels[every], fit.rows.groups[every])


def relations_left_out(run: FittedRun, fit: ArmFit) -> dict[str, Scored]:
    """By training relation, its rows as a probe arm scores them when it is fitted on the others, at its own layer and setting; empty with
    fewer than two. Adapters are those of the run: they were trained on other groups of the relation that is left out."""
    topics = run.column(lambda p: topic_of(p.example.dataset))
    untrained = np.isin(run.column(lambda p: p.split), UNTRAINED)
    fitted = fit.rows.fit
    names = np.unique(topics[fitted])
    if len(names) < 2:
        return {}
    X = fit.features(fit.selection.best.layer)
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
            without = refit(run, fit, X, rows, others)
        except ValueError:
            continue
        found[str(name)] = Scored(expit(without.log_odds(new)), fit.rows.labels[new], fit.rows.groups[new])
    return found
