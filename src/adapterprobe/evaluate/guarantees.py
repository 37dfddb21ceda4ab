"""Calibration and conformal records of every detector of a run, from its predictions alone."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from adapterprobe.evaluate.calibration import calibration_records
from adapterprobe.evaluate.conformal import conformal_records
from adapterprobe.evaluate.schema import main_axis


def guarantee_records(frame: pd.DataFrame, coverage: float, rate: float) -> tuple[list[dict], list[dict]]:
    """(calibration, conformal) records of every arm and probe for truth, means over seeds; reliability bins are the lowest seed's.

    Args:
        frame: rows of `predictions.parquet`.
        coverage, rate: see `conformal_records`.
    """
    calibration, conformal = [], []
    rows = frame[frame["axis"] == main_axis(frame["axis"])]
    for key, mine in rows.groupby(["arm", "probe"], dropna=False, sort=False, observed=True):
        arm, probe = cast(tuple[str, Any], key)
        name = {"arm": arm, "probe": None if pd.isna(probe) else probe}
        seeds = [part for _, part in mine.groupby("seed")]
        by_seed = [calibration_records(part) for part in seeds]
        for same in zip(*by_seed, strict=True):
            means = {measure: float(np.mean([record[measure] for record in same])) for measure in ("ece", "brier")}
            calibration.append(name | same[0] | means)
        conformal += [name | record for record in conformal_records(seeds, coverage, rate)]
    return calibration, conformal
