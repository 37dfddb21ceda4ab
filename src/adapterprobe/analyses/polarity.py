"""Where questions are asked both ways: does a detector tell whether the answer is true, or whether the claim is?"""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.evaluate.intervals import auroc_interval
from adapterprobe.evaluate.schema import main_axis
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
    """A record per split, arm, probe and axis: mean AUROC over data sets and conditions that have both classes, and the mean of their
    limits."""
    records = []
    keys = ["split", "arm", "probe", "axis"]
    for key, rows in frame.groupby(keys, dropna=False, sort=False, observed=True):
        split, arm, probe, axis = cast(tuple[str, str, Any, str], key)
        found = []
        for _, cell in rows.groupby(["dataset", "condition"], sort=False):
            labels = cell["label"].to_numpy(int)
            if len(set(labels)) == 2:
                interval, _ = auroc_interval(
                    labels, cell["score"].to_numpy(float), cell["group"].to_numpy(str), resamples
                )
                found.append((interval.estimate, interval.low, interval.high))
        if not found:
            continue
        mean = [float(sum(values) / len(found)) for values in zip(*found, strict=True)]
        records.append(
            {
                "split": split,
                "arm": arm,
                "probe": None if pd.isna(probe) else str(probe),
                "axis": axis,
                "polarity": name,
                "auroc": mean[0],
                "low": mean[1],
                "high": mean[2],
                "cells": len(found),
            }
        )
    return records
