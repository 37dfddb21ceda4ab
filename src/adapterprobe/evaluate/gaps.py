"""What detectors lose on questions of another kind."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.intervals import difference, resample
from adapterprobe.evaluate.schema import main_axis
from adapterprobe.evaluate.verdict import LEVEL, limits


def gap_records(frame: pd.DataFrame, probe: str, resamples: int) -> list[dict]:
    """How much of its AUROC for truth each arm (with the main probe) loses on each data set that nothing was trained on: metric `auroc_gap`, test
    less that set, averaged over seeds and conditions. A group that stands in both is resampled as one."""
    axis = main_axis(frame["axis"])
    frame = frame[(frame["axis"] == axis) & frame["split"].isin(["test", "ood"])]
    frame = frame[frame["probe"].isna() | (frame["probe"] == probe)]
    if set(frame["split"]) != {"test", "ood"}:
        return []
    records = []
    for dataset in sorted(frame.loc[frame["split"] == "ood", "dataset"].unique()):
        mine = frame[(frame["split"] == "test") | (frame["dataset"] == dataset)]
        sides = [
            Evaluation(mine.assign(split=mine["split"].where(mine["split"] == s, "other")), s, 0)
            for s in ("test", "ood")
        ]
        names = np.unique(mine["group"].to_numpy(str))
        weights = resample(len(names), resamples, 0)
        places = [np.searchsorted(names, side.group_names) for side in sides]
        for arm, own in sides[0].detectors():
            parts = [found for side in sides if (found := side.arm_auroc(arm, own)) is not None]
            if len(parts) < 2:
                continue

            # A resample without any of a side's groups says nothing.
            there, here = (lambda w, p=p, at=at: p(w[:, at]) for p, at in zip(parts, places, strict=True))
            value, error = difference(there, here, weights)
            low, high = limits(value, error, len(names), LEVEL)
            records.append(
                {
                    "dataset": dataset,
                    "split": "ood",
                    "arm": arm,
                    "probe": own,
                    "axis": axis,
                    "filter": "all",
                    "seeds": len(sides[0].seeds),
                    "condition": "mean",
                    "metric": "auroc_gap",
                    "estimate": value,
                    "low": low,
                    "high": high,
                    "n": int((mine["arm"] == arm).sum()),
                    "n_groups": len(names),
                }
            )
    return records
