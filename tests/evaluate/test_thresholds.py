"""Thresholds on data never trained on: the rate that is got in each of the five ways, on scores whose shift is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from adapterprobe.analyses.thresholds import cross_fitted, relations_left_out
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import FeatureSpec
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.thresholds import (
    WAYS,
    Scored,
    exact_interval,
    summary,
    threshold_records,
    unlabelled_threshold,
)
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.select import Search, select_probe


def drawn(groups: int, seed: int, shift: float = 0.0, base_rate: float = 0.5, apart: float = 2.0) -> Scored:
    """Two rows of each group, normal scores; positives lie `apart` higher, and all are moved by `shift`."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(2 * groups) < base_rate).astype(int)
    return Scored(rng.standard_normal(2 * groups) + apart * labels + shift, labels, np.arange(2 * groups) // 2)


def by_way(records: list[dict]) -> dict[str, dict]:
    return {record["way"]: record for record in records}


def rates(shift: float, base_rate: float = 0.5, assumed: float = 0.5, apart: float = 2.0) -> dict[str, float]:
    """Mean rate of false alarms of each way, over draws of everything."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for draw in range(40):
        relations = {str(n): drawn(60, 1000 + 10 * draw + n, shift=s) for n, s in enumerate((-0.5, 0.0, 1.0))}
        judged = drawn(150, 500 + draw, shift, base_rate, apart)
        pooled = drawn(600, 5000 + draw)
        for record in threshold_records(drawn(150, draw), judged, 0.1, assumed, relations, pooled):
            found[record["way"]].append(record["false_alarms"])
    return {way: float(np.mean(values)) for way, values in found.items()}


def test_rates_that_are_got():
    same = rates(shift=0.0)
    assert (
        all(0.08 < same[way] < 0.12 for way in ("carried", "cross-fitted", "unlabelled", "benign"))
        and same["worst case"] < 0.04
    )
    # Scores of new data lie higher: what was carried raises many alarms, what looked at the new data does not.
    moved = rates(shift=1.0)
    assert moved["carried"] > 0.3
    assert all(0.08 < moved[way] < 0.12 for way in ("unlabelled", "benign"))
    assert 0.05 < moved["worst case"] < 0.15, "a relation like it was among those that were left out"
    # A rare positive, its share known: the rate holds; taken for a half, everything is an alarm.
    assert 0.08 < rates(shift=1.0, base_rate=0.05, assumed=0.05)["unlabelled"] < 0.12
    assert rates(shift=1.0, base_rate=0.05, assumed=0.5)["unlabelled"] > 0.4
    # What unlabelled rows assume is that recall carries over: where it does not, the rate is higher, and benign rows still hold it.
    worse = rates(shift=1.0, apart=0.5)
    assert worse["unlabelled"] > 0.2 and 0.08 < worse["benign"] < 0.12


@pytest.mark.parametrize("way", ["benign", "unlabelled"])
def test_no_row_is_judged_by_a_threshold_that_its_group_took_part_in(way):
    """Half of 20 groups fixes by its highest negative, or by a quantile of its rows: the highest of all is an alarm only if the other half
    judges it."""
    groups = np.arange(40)
    labels = np.zeros(40, int)
    labels[0] = 1
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.permutation(40).astype(float)
        judged = Scored(scores, labels, groups)
        found = by_way(threshold_records(drawn(100, 0), judged, 0.05, 0.01, {}))[way]
        alarms = found["false_alarms"] * 39
        top = scores[labels == 0].max()
        # By its own half nothing could lie above the highest negative of all; by the other half it does.
        assert alarms >= 1 - 1e-9 or top < scores[0], (way, alarms)


def test_refused_where_too_little_is_known():
    few = by_way(threshold_records(drawn(4, 0), drawn(12, 1), 0.1, 0.5, {"one": drawn(40, 2)}))
    assert "at least 9 needed for a rate of 0.1" in few["carried"]["refused"]
    assert "at least 9 needed" in few["benign"]["refused"] and "at least 9 needed" in few["unlabelled"]["refused"]
    assert "the worst case needs at least 2" in few["worst case"]["refused"]
    assert "at least 20 needed to tell a quantile" in by_way(threshold_records(drawn(99, 0), drawn(12, 1), 0.1, 0.5, {}))["unlabelled"]["refused"]  # fmt: skip
    with pytest.raises(ConfigError, match="above 0 and below 1, got 1"):
        unlabelled_threshold(np.zeros(50), 0.1, 1.0, 0.5)
    with pytest.raises(DataError, match="at least 20 expected"):
        unlabelled_threshold(np.zeros(5), 0.1, 0.5, 0.5)


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (3, 20), (20, 20)])
def test_exact_intervals_are_clopper_and_pearsons(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, "exact")
    assert exact_interval(hits / count, count) == pytest.approx((expected.low, expected.high))


def test_the_summary_counts_data_sets():
    records = [
        {"way": "carried", "nominal": 0.1, "false_alarms": share, "recall": 0.5} for share in (0.02, 0.1, 0.15, 0.4)
    ]
    found = summary([*records, {"way": "carried", "nominal": 0.1, "refused": "too few"}], "carried")
    assert found == {"way": "carried", "datasets": 4, "at_most_asked": 2, "at_most_twice": 3, "near": 2, "highest": 0.4, "recall": 0.5}  # fmt: skip
    assert summary(records, "benign") is None


def test_a_relation_is_scored_by_a_probe_that_never_saw_it():
    """Two relations tell the truth along opposite ways of one axis: a probe that is fitted on one is turned round on the other."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    topics = np.where(np.arange(400) < 200, "one", "other")
    X = rng.standard_normal((400, 6))
    X[:, 0] += np.where(topics == "one", 4.0, -4.0) * labels
    splits = np.where(np.arange(400) % 4 < 2, "adapter-train", "probe-train")
    groups = np.arange(400) // 2
    rows = Rows(labels, np.arange(400), np.arange(400), np.full(400, "truth"), groups)
    chosen = select_probe("logistic", lambda layer: X, [3], rows, Search([1.0]))
    fit = ArmFit("base+probe", "logistic", 0, chosen, lambda layer: X, rows)
    prompts = [
        SimpleNamespace(example=SimpleNamespace(dataset=t), split=s) for t, s in zip(topics, splits, strict=True)
    ]
    run = SimpleNamespace(
        column=lambda of: np.array([of(p) for p in prompts]),
        feature_specs={"logistic": FeatureSpec((3,))},
        config=RunConfig(),
    )
    found = relations_left_out(run, fit)
    assert set(found) == {"one", "other"}
    for scored in found.values():
        assert len(scored.scores) == 100, "rows that an adapter was trained on fix nothing"
        assert roc_auc_score(scored.labels, scored.scores) < 0.05
    # What was fitted on under the other relation too is passed over.
    shared = ArmFit(
        "base+probe",
        "logistic",
        0,
        chosen,
        lambda layer: X,
        Rows(labels, np.arange(400), np.arange(400), rows.conditions, groups % 100),
    )
    assert relations_left_out(run, shared) == {}


def test_rows_that_were_fitted_on_are_scored_by_fits_without_their_group():
    """Features in which every group has an axis of its own: a probe knows the groups that it was fitted on by heart, and nothing of others."""
    rng = np.random.default_rng(0)
    groups = np.arange(160) // 4
    labels = np.repeat(rng.integers(0, 2, 40), 4)
    X = np.eye(40)[groups] * 5 + 0.01 * rng.standard_normal((160, 40))
    splits = np.select([np.arange(160) < 60, np.arange(160) < 120], ["adapter-train", "probe-train"], "calibrate")
    fitted = np.arange(120)
    rows = Rows(labels, fitted, np.arange(120, 160), np.full(160, "truth"), groups)
    chosen = select_probe("logistic", lambda layer: X, [3], rows, Search([1.0]))
    fit = ArmFit("base+probe@matched", "logistic", 0, chosen, lambda layer: X, rows)
    prompts = [SimpleNamespace(split=split) for split in splits]
    run = SimpleNamespace(
        column=lambda of: np.array([of(p) for p in prompts]),
        feature_specs={"logistic": FeatureSpec((3,))},
        config=RunConfig(),
    )
    pooled = cross_fitted(run, fit)
    assert len(pooled.scores) == 40 + 60 and set(pooled.groups) == set(groups[60:])
    assert roc_auc_score(labels[60:120], chosen.best.scores[60:120]) == 1.0
    mine = np.isin(pooled.groups, groups[60:120])
    assert roc_auc_score(pooled.labels[mine], pooled.scores[mine]) < 0.9
    assert np.array_equal(pooled.scores[~mine], chosen.best.scores[120:])


def test_one_class_alone_is_refused_and_not_a_number():
    only = Scored(np.zeros(30), np.ones(30, int), np.arange(30))
    assert {r["refused"] for r in threshold_records(drawn(99, 0), only, 0.1, 0.5, {})} == {
        "there are no negatives to be judged"
    }
    negatives = Scored(np.arange(60.0), np.zeros(60, int), np.arange(60))
    found = by_way(threshold_records(negatives, drawn(60, 1), 0.1, 0.5, {}, drawn(3, 2)))
    assert "no positives calibrate" in found["unlabelled"]["refused"]
    assert "too few negatives for a rate" in found["cross-fitted"]["refused"] and "refused" not in found["carried"]
