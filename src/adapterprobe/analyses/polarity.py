"""Where questions are asked both ways: does a detector tell whether the answer is true, or whether the claim is?"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.evaluate.intervals import resample, share_interval
from adapterprobe.evaluate.schema import main_axis
from adapterprobe.evaluate.statistics import auroc, mean_of
from adapterprobe.types import CLAIM, NEGATED


def polarity(run: FittedRun) -> Findings:
    """AUROC for the answer's truth and for the claim's, of every arm and probe of the lowest seed: affirmed questions, negated ones, and both
    together. Within condition and data set, then averaged; intervals over groups."""
    if CLAIM not in run.config.axes:
        return {}
    frame = run.predictions
    main = main_axis(run.config.axes)
    frame = frame[frame["axis"].isin([main, CLAIM]) & (frame["seed"] == run.lowest_seed)]
    frame = frame[frame["split"] != "calibrate"]
    denied = frame["form"].isin(NEGATED)
    parts = {"affirmed": frame[~denied], "negated": frame[denied], "both": frame}
    records = [
        record for name, part in parts.items() for record in polarity_records(part, name, run.config.evaluate.resamples)
    ]
    return {"challenge.json": {"polarity": records}}


def polarity_records(frame: pd.DataFrame, name: str, resamples: int) -> list[dict[str, Any]]:
    """A record per split, arm, probe and axis: mean AUROC over data sets and conditions that have both classes, with its interval over the
    groups of them all."""
    records = []
    keys = ["split", "arm", "probe", "axis"]
    for key, rows in frame.groupby(keys, dropna=False, sort=False, observed=True):
        split, arm, probe, axis = cast(tuple[str, str, Any, str], key)
        names, codes = np.unique(rows["group"].to_numpy(str), return_inverse=True)
        rows, found = rows.assign(code=codes), []
        for _, cell in rows.groupby(["dataset", "condition"], sort=False):
            labels = cell["label"].to_numpy(int)
            if len(set(labels)) == 2:
                found.append(auroc(labels, cell["score"].to_numpy(float), cell["code"].to_numpy(int), len(names)))
        if not found:
            continue
        interval = share_interval(mean_of(found), resample(len(names), resamples, 0))
        records.append(
            {
                "split": split,
                "arm": arm,
                "probe": None if pd.isna(probe) else str(probe),
                "axis": axis,
                "polarity": name,
                "auroc": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "cells": len(found),
            }
        )
    return records
