"""Is a probe unsure where it should be? Out-of-distribution prompts told from held-out ones by its uncertainty."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.evaluate.intervals import resample, share_interval
from adapterprobe.evaluate.statistics import auroc, mean_of

MEASURES = ("epistemic", "latent_variance", "aleatoric")


def ood_detection_records(frame: pd.DataFrame, resamples: int) -> list[dict]:
    """AUROC of each measure for telling each out-of-distribution data set from the test split, mean over seeds, groups resampled.

    Args:
        frame: `uncertainty.parquet`.
    """
    records = []
    judged = frame[frame["split"].isin(["test", "ood"])]
    for (arm, probe), rows in judged.groupby(["arm", "probe"], sort=False):
        inside = rows[rows["split"] == "test"]
        for dataset, outside in rows[rows["split"] == "ood"].groupby("dataset"):
            both = pd.concat([inside, outside])
            names = np.unique(both["group"].to_numpy(str))
            weights = resample(len(names), resamples, 0)
            for measure in MEASURES:
                if both[measure].isna().any():
                    continue
                parts = []
                for _, mine in both.groupby("seed"):
                    labels = (mine["split"] == "ood").to_numpy(float)
                    codes = np.searchsorted(names, mine["group"].to_numpy(str))
                    parts.append(auroc(labels, mine[measure].to_numpy(float), codes, len(names)))
                found = share_interval(mean_of(parts), weights)
                records.append(
                    {
                        "arm": arm,
                        "probe": probe,
                        "dataset": dataset,
                        "measure": measure,
                        "auroc": found.estimate,
                        "low": found.low,
                        "high": found.high,
                        "inside": float(inside[measure].mean()),
                        "outside": float(outside[measure].mean()),
                    }
                )
    return records
