"""The table of both polarities: means over data sets and conditions, with intervals over all their groups."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adapterprobe.analyses.polarity import polarity_records


def _frame(datasets: int, alike: bool) -> pd.DataFrame:
    """30 groups in each of several data sets: groups of their own, or the same ones with the same scores."""
    parts = []
    for number in range(datasets):
        rng = np.random.default_rng(0 if alike else number)
        labels = np.arange(120) % 2
        parts.append(
            pd.DataFrame(
                {
                    "split": "test", "arm": "base", "probe": None, "axis": "truth", "condition": "truth",
                    "dataset": f"d{number}", "label": labels, "score": labels + 1.5 * rng.standard_normal(120),
                    "group": [f"{'' if alike else number}-{row // 4}" for row in range(120)],
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_the_mean_has_the_interval_of_a_mean():
    frame = _frame(9, alike=False)
    (record,) = polarity_records(frame, "both", 400)
    cells = [roc_auc_score(rows["label"], rows["score"]) for _, rows in frame.groupby("dataset")]
    assert record["auroc"] == pytest.approx(np.mean(cells)) and record["cells"] == 9
    (alone,) = polarity_records(frame[frame["dataset"] == "d0"], "both", 400)
    width, one = record["high"] - record["low"], alone["high"] - alone["low"]
    # Nine data sets of their own groups: a third of one's.
    assert 0.2 < width / one < 0.5
    # The same groups nine times tell no more than once.
    (same,) = polarity_records(_frame(9, alike=True), "both", 400)
    assert same["high"] - same["low"] == pytest.approx(one, rel=0.05)


def test_cells_of_one_class_are_passed_over():
    frame = _frame(2, alike=False)
    frame.loc[frame["dataset"] == "d1", "label"] = 1
    (record,) = polarity_records(frame, "both", 100)
    assert record["cells"] == 1
    assert polarity_records(frame[frame["dataset"] == "d1"], "both", 100) == []
