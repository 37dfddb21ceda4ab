"""Detectors on the same questions asked in other ways, against how they do on them as they were asked."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.intervals import difference, share_interval
from adapterprobe.evaluate.schema import has_probe, main_axis
from adapterprobe.evaluate.verdict import limits


def shift_records(frame: pd.DataFrame, scores: pd.DataFrame, probe: str, resamples: int) -> list[dict]:
    """A record per way of asking and arm: AUROC for truth there, on the very same groups as they were asked, and the paired
    difference, each with a 95 % interval over groups; balanced accuracy at the threshold that was carried over.

    Args:
        frame: `predictions.parquet`.
        scores: the same columns and `shift`; one seed.
        probe: the probe that main tables show.
    """
    records = []
    if scores.empty:
        return records
    seed = scores["seed"].iloc[0]
    plain = frame[(frame["split"] == "test") & (frame["axis"] == main_axis(frame["axis"])) & (frame["seed"] == seed)]
    for name, mine in scores.groupby("shift", sort=False):
        same = plain[plain["group"].isin(mine["group"]) & plain["dataset"].isin(mine["dataset"])]
        # One frame, so that both are resampled over the same groups.
        both = pd.concat([mine.assign(arm=mine["arm"] + " *"), same], ignore_index=True)
        evaluation = Evaluation(both, "test", resamples)
        for arm in dict.fromkeys(mine["arm"]):
            wanted = probe if has_probe(arm) else None
            asked, before = (evaluation.arm_auroc(a, wanted) for a in (f"{arm} *", arm))
            if asked is None or before is None:
                continue
            interval = share_interval(asked, evaluation.weights)
            value, error = difference(asked, before, evaluation.weights)
            low, high = limits(value, error, len(evaluation.group_names), 0.05)
            rows = mine[mine["arm"] == arm]
            right = (rows["score"] > rows["threshold"]) == (rows["label"] == 1)
            known = rows["threshold"].notna()
            sides = [right[known & (rows["label"] == side)].mean() for side in (0, 1)]
            accuracy = float(np.mean(sides)) if known.any() else float("nan")
            records.append(
                {
                    "shift": name,
                    "arm": arm,
                    "probe": wanted,
                    "auroc": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "as_asked": interval.estimate - value,
                    "difference": value,
                    "difference_low": low,
                    "difference_high": high,
                    "balanced_accuracy": accuracy if np.isfinite(accuracy) else None,
                    "n_groups": len(evaluation.group_names),
                    "expectation": "still surely above 0.5",
                    "met": bool(interval.low > 0.5),
                }
            )
    return records
