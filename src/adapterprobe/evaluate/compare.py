"""Arms of different runs side by side, on what both were judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.intervals import difference, resample
from adapterprobe.evaluate.schema import has_probe, main_axis
from adapterprobe.evaluate.verdict import LEVEL, holm, limits, p_value


@dataclass(frozen=True)
class Side:
    """A run's predictions for truth: own answers, and the probe that its main tables show."""

    name: str
    frame: pd.DataFrame
    probe: str

    @classmethod
    def of(cls, name: str, frame: pd.DataFrame, probe: str) -> Side:
        """From `predictions.parquet`."""
        mine = (frame["axis"] == main_axis(frame["axis"])) & (frame["probe"].isna() | (frame["probe"] == probe))
        return cls(name, frame[mine & frame["split"].isin(["test", "ood"])], probe)

    def rows(self, arm: str, split: str) -> pd.DataFrame:
        return self.frame[(self.frame["arm"] == arm) & (self.frame["split"] == split)]


def difference_records(sides: list[Side], resamples: int) -> list[dict]:
    """Each run's arms less the first run's, in AUROC averaged over data sets, conditions and seeds, by split.

    Only data sets that both judge count. Where prompts are shared, those alone are compared (`paired`); else each is judged on its
    own. Either way groups that stand in both are resampled as one. `p_adjusted` is Holm's over all of these differences.
    """
    first, records = sides[0], []
    for other in sides[1:]:
        for split in ("test", "ood"):
            for arm in dict.fromkeys(other.frame["arm"]):
                found = _difference(first, other, arm, split, resamples)
                if found:
                    records.append({"run": other.name, "less": first.name, "split": split, "arm": arm} | found)
    for record, adjusted in zip(records, holm([r["p"] for r in records]) if records else [], strict=True):
        record["p_adjusted"] = adjusted
    return records


def _difference(first: Side, other: Side, arm: str, split: str, resamples: int) -> dict | None:
    parts = [side.rows(arm, split) for side in (other, first)]
    common = set(parts[0]["dataset"]) & set(parts[1]["dataset"])
    conditions = set(parts[0]["condition"]) & set(parts[1]["condition"])
    parts = [p[p["dataset"].isin(common) & p["condition"].isin(conditions)] for p in parts]
    if parts[0].empty or parts[1].empty:
        return None
    shared = set(parts[0]["prompt_id"]) & set(parts[1]["prompt_id"])
    if shared:
        parts = [p[p["prompt_id"].isin(shared)] for p in parts]
    evaluations = [Evaluation(part, split, 0) for part in parts]
    probes = [side.probe if has_probe(arm) else None for side in (other, first)]
    try:
        statistics = [e.arm_auroc(arm, probe) for e, probe in zip(evaluations, probes, strict=True)]
    except KeyError:
        return None
    found = [statistic for statistic in statistics if statistic is not None]
    if len(found) < 2:
        return None
    names = np.unique(np.concatenate([e.group_names for e in evaluations]))
    places = [np.searchsorted(names, e.group_names) for e in evaluations]

    mine, theirs = (lambda w, s=s, at=at: s(w[:, at]) for s, at in zip(found, places, strict=True))
    value, error = difference(mine, theirs, resample(len(names), resamples, 0))
    low, high = limits(value, error, len(names), LEVEL)
    return {
        "difference": value,
        "low": low,
        "high": high,
        "p": p_value(value, error, len(names)),
        "n_groups": len(names),
        "datasets": sorted(common),
        "paired": bool(shared),
    }
