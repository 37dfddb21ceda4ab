"""Differences between runs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adapterprobe.evaluate.compare import Side, difference_records


def predictions(shift, seed, groups=range(60), prefix="p"):
    rng = np.random.default_rng(seed)
    parts = []
    for split, dataset in (("test", "a"), ("ood", "b")):
        for arm, probe in (("adapter", None), ("base+probe", "logistic"), ("base+probe", "other")):
            label = np.tile([0, 1], len(groups))
            parts.append(
                pd.DataFrame({"label": pd.array(label, dtype="Int8"), "score": rng.normal(size=len(label)) + shift * label}).assign(
                    group=[f"g{g}" for g in np.repeat(list(groups), 2)], dataset=dataset, split=split, condition="truth", seed=0,
                    axis="truth", arm=arm, probe=pd.Series([probe] * len(label), dtype="string"), threshold=0.5,
                    prompt_id=[f"{prefix}{dataset}{g}-{i}" for g in groups for i in (0, 1)], template="t",
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_paired_differences():
    one, two = predictions(1.0, 0), predictions(2.5, 1)
    records = difference_records([Side.of("one", one, "logistic"), Side.of("two", two, "logistic")], 2000)
    assert {(r["split"], r["arm"]) for r in records} == {
        (s, a) for s in ("test", "ood") for a in ("adapter", "base+probe")
    }

    def auroc(frame):
        rows = frame[(frame["split"] == "test") & (frame["probe"] == "logistic")]
        return roc_auc_score(rows["label"].astype(int), rows["score"])

    mine = next(r for r in records if (r["split"], r["arm"]) == ("test", "base+probe"))
    assert mine["difference"] == pytest.approx(auroc(two) - auroc(one)) and mine["paired"]
    assert mine["low"] > 0 and mine["p_adjusted"] >= mine["p"] and mine["n_groups"] == 60


def test_a_run_against_itself_leaves_no_doubt():
    same = predictions(1.0, 0)
    records = difference_records([Side.of("one", same, "logistic"), Side.of("two", same.copy(), "logistic")], 1000)
    assert all(r["difference"] == r["low"] == r["high"] == 0 and r["p_adjusted"] == 1 for r in records)


def test_only_what_both_have_counts():
    one = predictions(1.0, 0)
    # Other prompts on other groups: nothing is paired, and the sum of both groups is resampled.
    apart = difference_records(
        [Side.of("one", one, "logistic"), Side.of("two", predictions(1.0, 1, range(40, 90), "q"), "logistic")], 1000
    )
    assert not apart[0]["paired"] and apart[0]["n_groups"] == 90
    # Some prompts are shared: these alone.
    some = difference_records(
        [Side.of("one", one, "logistic"), Side.of("two", predictions(1.0, 1, range(40, 90)), "logistic")], 1000
    )
    assert some[0]["paired"] and some[0]["n_groups"] == 20
    elsewhere = predictions(1.0, 1).assign(dataset="c")
    assert difference_records([Side.of("one", one, "logistic"), Side.of("two", elsewhere, "logistic")], 1000) == []


def test_equal_runs_are_rarely_told_apart():
    false = 0
    for seed in range(60):
        sides = [Side.of(str(s), predictions(1.0, 100 * seed + s), "logistic") for s in (1, 2)]
        false += any(r["p_adjusted"] < 0.05 for r in difference_records(sides, 1000))
    assert false <= 8
