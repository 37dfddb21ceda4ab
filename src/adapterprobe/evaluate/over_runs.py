"""Means over runs: the unit is the run (a model that lies, a draw of data sets, a data seed), not its questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.evaluate.verdict import LEVEL, limits
from adapterprobe.types import Interval

FEWEST = 3
"""Runs below which their spread says nothing."""


def mean_over_runs(values: Sequence[float]) -> Interval:
    """Mean of one value a run with Student's 95 % interval; its limits are NaN below three runs, and where all are alike.

    >>> interval = mean_over_runs([0.1, 0.2, 0.3])
    >>> [round(limit, 3) for limit in (interval.estimate, interval.low, interval.high)]
    [0.2, -0.048, 0.448]
    """
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) >= FEWEST else 0.0
    if error == 0:
        return Interval(mean, float("nan"), float("nan"))
    low, high = limits(mean, error, len(values), LEVEL)
    return Interval(mean, low, high)


def shown_over_runs(values: Sequence[float], sign: bool = False) -> str:
    """`0.71 [0.65, 0.77]`, or the mean alone where runs are too few."""
    found = mean_over_runs(values)
    form = "+.3f" if sign else ".3f"
    text = f"{found.estimate:{form}}"
    return text if np.isnan(found.low) else f"{text} [{found.low:{form}}, {found.high:{form}}]"
