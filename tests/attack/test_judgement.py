"""Nothing is judged that is not there: scores that are no numbers, groups too few to vary, detectors that are turned round."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from adapterprobe.cli import main
from adapterprobe.errors import ModelError, OutputError
from adapterprobe.evaluate.intervals import IDENTICAL, difference, resample, standard_error
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.schema import COLUMNS
from adapterprobe.evaluate.scores import refuse_non_finite
from adapterprobe.evaluate.statistics import auroc, group_wins
from adapterprobe.evaluate.verdict import judge, limits, p_value, parse_hypothesis


def frame(groups: int, better: float = 2.0, worse: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Predictions of two arms on so many groups, each with a true and a false row."""
    rng = np.random.default_rng(seed)
    parts = []
    for arm, probe, shift in (("adapter+probe", "logistic", better), ("base+probe@matched", "logistic", worse)):
        label = np.tile([0, 1], groups)
        part = {name: None for name in COLUMNS} | {
            "dataset": "d", "split": "test", "prompt_id": [f"p{i}" for i in range(2 * groups)], "example_id": [f"p{i}" for i in range(2 * groups)],
            "group": np.repeat([f"g{i}" for i in range(groups)], 2), "condition": "truth", "template": "t", "format": "plain", "demo_set": "s",
            "shots": 0, "form": "question", "known": True, "axis": "truth", "label": label, "train_axis": "truth", "arm": arm, "probe": probe,
            "layer": 1, "seed": 0, "data_seed": 0, "score": rng.normal(size=2 * groups) + shift * label, "threshold": 0.5, "recall_known": True,
        }  # fmt: skip
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


HYPOTHESIS = [parse_hypothesis("adapter+probe > base+probe@matched on test")]


def verdict(data: pd.DataFrame, **options) -> dict:
    return evaluate(data, HYPOTHESIS, "logistic", 1000, 0.02, **options)[1][0]


@pytest.mark.parametrize("arm", ["adapter+probe", "base+probe@matched"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_scores_that_are_no_numbers(arm, value, all_of_them):
    data = frame(40)
    rows = data.index[data["arm"] == arm]
    data.loc[rows if all_of_them else rows[:3], "score"] = value
    with pytest.raises(
        OutputError, match=rf"{len(rows) if all_of_them else 3} of 160 scores are not finite.*{arm[:4]}"
    ):
        verdict(data)


def test_they_are_refused_when_they_are_made():
    with pytest.raises(ModelError, match=r"adapter\+probe \(mine\), seed 3: 1 of 4 scores .* prompt c \(row 2\)"):
        refuse_non_finite("adapter+probe", "mine", 3, np.array([0, 1, np.nan, 2]), list("abcd"))


@pytest.mark.parametrize("groups", [1, 2, 3, 7])
def test_few_groups_that_all_agree_decide_nothing(groups):
    """The better arm is right about all, the worse about none: as large a difference as there is, and no spread."""
    data = frame(groups)
    sign = np.where(data["arm"] == "adapter+probe", 1, -1)
    data["score"] = sign * (data["label"].astype(float) * 2 - 1)
    found = verdict(data)
    assert found["verdict"] == "undecided" and found["p_adjusted"] == 1.0
    assert (found["low"], found["high"]) == ((-1, 1) if groups > 1 else (None, None))
    assert found["groups_to_decide"] is None


def test_two_groups_of_one_class_each():
    data = frame(2)
    data = data[(data["group"] == "g0") == (data["label"] == 1)]
    data = pd.concat([data, data.assign(prompt_id=data["prompt_id"] + "x")], ignore_index=True)
    found = verdict(data)
    assert found["verdict"] == "undecided" and found["p_adjusted"] == 1.0


def test_more_groups_that_all_agree_decide_as_a_vote_would():
    data = frame(30)
    sign = np.where(data["arm"] == "adapter+probe", 1, -1)
    data["score"] = sign * (data["label"].astype(float) * 2 - 1)
    found = verdict(data)
    assert found["verdict"] == "supported" and found["p"] == pytest.approx(2 * 0.5**30)
    assert 0 < found["low"] < 1.0 <= found["high"]
    assert verdict(data, min_groups=31)["verdict"] == "undecided"


def test_arms_that_are_one_and_the_same_differ_by_nothing():
    data = frame(30, seed=1)
    half = len(data) // 2
    data.loc[data.index[half:], "score"] = data.loc[data.index[:half], "score"].to_numpy()
    found = verdict(data)
    assert (found["difference"], found["low"], found["high"], found["verdict"]) == (0, 0, 0, "refuted")


def test_two_arms_that_are_both_perfect_are_not_surely_equal():
    data = frame(10)
    data["score"] = data["label"].astype(float)
    found = verdict(data)
    assert found["verdict"] == "undecided" and found["low"] < -0.2 < 0.2 < found["high"]


def test_groups_without_a_label_do_not_count():
    """Lies are known of two groups of forty: they decide nothing, however surely they agree."""
    data = frame(40)
    data["axis"] = "lie"
    data["label"] = data["label"].where(data["group"].isin(["g0", "g1"])).astype("Int8")
    sign = np.where(data["arm"] == "adapter+probe", 1, -1)
    data["score"] = sign * (data["label"].fillna(0).astype(float) * 2 - 1)
    lie = [parse_hypothesis("adapter+probe > base+probe@matched on test for lie")]
    found = evaluate(data, lie, "logistic", 1000, 0.02)[1][0]
    assert found["n_groups"] == 2 and found["verdict"] == "undecided" and found["p_adjusted"] == 1


def test_what_an_error_of_nothing_means():
    assert math.isnan(standard_error(np.full(100, 0.3), 7)) and standard_error(np.full(100, 0.3), 8) == 0
    assert math.isnan(standard_error(np.full(100, np.nan), 50))
    assert p_value(0.3, float("nan"), 5) == 1 and limits(0.3, float("nan"), 5, 0.05) == (-1, 1)
    low, high = limits(0.0, 0.0, 20, 0.05)
    assert p_value(0.0, 0.0, 20) == 1 and high == -low == pytest.approx(1 - 0.025 ** (1 / 20)), (
        "agreement leaves the others free"
    )
    assert p_value(0.0, IDENTICAL, 20) == 1 and limits(0.0, IDENTICAL, 20, 0.05) == (0, 0)
    (record,) = judge(HYPOTHESIS, [(0.5, float("nan"), 3)], 0.02, 1)
    assert record["verdict"] == "undecided"


def test_false_alarms_with_few_groups():
    """Two arms that are equally good, judged on 8 groups, again and again: not more often decided than promised."""
    wrong = sum(verdict(frame(8, 1.0, 1.0, seed))["verdict"] == "supported" for seed in range(100))
    assert wrong <= 12


def slow_wins(above, above_groups, below, below_groups, n_groups):
    wins = np.zeros((n_groups, n_groups))
    for a, g in zip(above, above_groups, strict=True):
        for b, h in zip(below, below_groups, strict=True):
            wins[g, h] += (a > b) + 0.5 * (a == b)
    return wins


@pytest.mark.parametrize("ties", [True, False])
def test_auroc_by_ranks_is_that_of_all_pairs(ties):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 300), rng.integers(0, 23, 300)
    scores = rng.integers(0, 9, 300).astype(float) if ties else rng.normal(size=300)
    up, down = labels == 1, labels == 0
    got = group_wins(scores[up], groups[up], scores[down], groups[down], 23)
    assert (got == slow_wins(scores[up], groups[up], scores[down], groups[down], 23)).all()
    statistic = auroc(labels.astype(float), scores, groups, 30)
    assert statistic(np.ones((1, 30)))[0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    weights = resample(30, 50, 0)
    for row, value in zip(weights, statistic(weights), strict=True):
        again = np.repeat(np.arange(300), row[groups].astype(int))
        assert value == pytest.approx(roc_auc_score(labels[again], scores[again]), abs=1e-12)


def test_auroc_takes_memory_by_groups_not_rows():
    """20,000 rows in 1,000 groups: all pairs of rows would be 800 MB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    labels, groups, scores = rng.integers(0, 2, 20_000).astype(float), np.arange(20_000) % 1000, rng.normal(size=20_000)
    tracemalloc.start()
    statistic = auroc(labels, scores, groups, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    assert 0.4 < statistic(np.ones((1, 1000)))[0] < 0.6
    assert difference(statistic, statistic, resample(1000, 20, 0)) == (0, IDENTICAL)


def test_a_probe_that_gives_no_numbers_is_left_out(finished_run, tmp_path, monkeypatch, capsys):
    """Outside selection alone: found before anything is written."""
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    (tmp_path / "own.py").write_text(
        "import numpy as np\nfrom adapterprobe.probes import Probe, register\n"
        "@register('turns_nan')\nclass TurnsNan(Probe):\n"
        "    def _fit(self, X, y, sample_weight):\n        self.top_ = float(np.abs(X).max())\n        self.mean_ = X.mean(0)\n"
        "    def _decide(self, X):\n        d = (X - self.mean_).sum(1)\n"
        "        return np.where(np.abs(X).max(1) > self.top_, np.nan, d)\n"
    )
    argv = [
        "run",
        str(finished_run / "run.yaml"),
        "--import",
        str(tmp_path / "own.py"),
        "--set",
        "probes=[logistic,turns_nan]",
    ]
    from adapterprobe.probes import registry

    before = dict(registry._REGISTRY)
    try:
        assert main([*argv, "--out", str(tmp_path / "o")]) == 0
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    shown = capsys.readouterr()
    assert "probe 'turns_nan' is left out" in shown.err and "not finite" in shown.err
    scores = pd.read_parquet(tmp_path / "o" / "predictions.parquet")["score"]
    assert np.isfinite(scores).all()


def test_a_report_says_inverted(finished_run, tmp_path, monkeypatch):
    """A data set on which every probe says the opposite: the first sentence and the table name it."""
    from adapterprobe.report.headline import headline
    from adapterprobe.report.run_reader import read_run
    from adapterprobe.report.summary import arms_table

    out = tmp_path / "o"
    shutil.copytree(finished_run / "out", out)
    data = pd.read_parquet(out / "predictions.parquet")
    rng = np.random.default_rng(0)
    turned = (data["split"] == "ood") & data["probe"].notna() & (data["axis"] == "truth")
    label = data.loc[turned, "label"].astype(float)
    data.loc[turned, "score"] = 0.5 - 0.3 * (label - 0.5) + rng.normal(size=turned.sum()) * 0.05
    data.to_parquet(out / "predictions.parquet", index=False)
    assert main(["report", str(out), "--accept-changes"]) == 0
    run = read_run(out)
    sentence = headline(run)
    assert "inverted" in sentence and "elements" in sentence and "adapter+probe" in sentence.split("inverted")[1]
    assert sentence in (out / "report.md").read_text().replace("&gt;", ">")
    table = arms_table(run)
    cells = table.set_index("arm")["ood: elements AUROC"]
    assert cells["adapter+probe"].endswith("INVERTED") and not cells["base"].endswith("INVERTED")
    results = json.loads((out / "results.json").read_text())
    assert any(r["metric"] == "auroc" and r["dataset"] == "elements" and (r["high"] or 1) < 0.5 for r in results)
