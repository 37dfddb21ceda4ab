"""Metrics equal scikit-learn's; resampling them by weights equals resampling rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from adapterprobe.analyses.probe_controls import shuffled_labels
from adapterprobe.analyses.prompt_controls import chance_reach, prompt_only
from adapterprobe.errors import ConfigError
from adapterprobe.evaluate import statistics as m
from adapterprobe.evaluate.controls import control_comparisons, split_auroc
from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.intervals import difference, estimate, resample, share_interval
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.schema import COLUMNS
from adapterprobe.evaluate.scores import Detector, Labels, choose_threshold
from adapterprobe.evaluate.shifts import shift_records
from adapterprobe.evaluate.statistics import auroc_columns
from adapterprobe.evaluate.verdict import groups_to_decide, holm, judge, parse_hypothesis


def rows(n_groups=40, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 3)
    labels = rng.integers(0, 2, len(groups)).astype(float)
    scores = 1 / (1 + np.exp(-(rng.normal(size=len(groups)) + labels)))
    return labels, np.round(scores, 1) if ties else scores, groups, n_groups


def recall_literally(labels, scores, rate):
    best = 0.0
    for threshold in np.append(scores, np.inf):
        above = scores >= threshold
        if above[labels == 0].mean() <= rate:
            best = max(best, above[labels == 1].mean())
    return best


REFERENCES = {
    "auroc": (m.auroc, {}, sk.roc_auc_score),
    "accuracy": (m.accuracy, {"threshold": 0.45}, lambda y, s: sk.accuracy_score(y, s > 0.45)),
    "balanced": (m.balanced_accuracy, {"threshold": 0.45}, lambda y, s: sk.balanced_accuracy_score(y, s > 0.45)),
    "majority": (m.majority, {}, lambda y, s: max(y.mean(), 1 - y.mean())),
    "brier": (m.brier, {}, sk.brier_score_loss),
    "recall": (m.recall_at_fpr, {"rate": 0.1}, lambda y, s: recall_literally(y, s, 0.1)),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("seed", range(4))
def test_against_references_with_ties(name, seed):
    build, options, reference = REFERENCES[name]
    labels, scores, groups, n = rows(seed=seed)
    statistic = build(labels, scores, groups, n, **options)
    assert estimate(statistic, n) == pytest.approx(reference(labels, scores), abs=1e-6)
    # A resample by weights is the resample of rows.
    counts = resample(n, 20, seed)
    for weights, value in zip(counts, statistic(counts), strict=True):
        drawn = np.repeat(np.arange(len(labels)), weights[groups].astype(int))
        assert value == pytest.approx(reference(labels[drawn], scores[drawn]), abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_recall_of_resamples_is_that_of_their_rows(seed):
    """Many ties and few groups: more resamples than are looked at together, thresholds that no resample crosses, groups without a class."""
    rng = np.random.default_rng(seed)
    n_groups, count = int(rng.integers(2, 20)), int(rng.integers(4, 90))
    groups, labels = rng.integers(0, n_groups, count), rng.integers(0, 2, count).astype(float)
    scores = np.round(rng.normal(size=count) + labels, int(rng.integers(0, 3)))
    weights = resample(n_groups, m.PIECE + 40, seed)
    for rate in (0.0, 0.02, 0.3, 1.0):
        got = m.recall_at_fpr(labels, scores, groups, n_groups, rate)(weights)
        for row in (0, 1, m.PIECE - 1, m.PIECE, len(weights) - 1):
            drawn = np.repeat(np.arange(count), weights[row][groups].astype(int))
            if set(labels[drawn]) == {0.0, 1.0}:
                assert got[row] == pytest.approx(recall_literally(labels[drawn], scores[drawn], rate), abs=1e-12)
            else:
                assert np.isnan(got[row])


def test_recall_takes_no_table_of_resamples_and_rows():
    import tracemalloc

    labels, scores, groups, n = rows(n_groups=4000, ties=False)
    weights = resample(n, 2000, 0)
    tracemalloc.start()
    m.recall_at_fpr(labels, scores, groups, n, 0.05)(weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.4 * 8 * len(labels) * len(weights)


def test_ece_literally():
    labels, scores, groups, n = rows(ties=False)
    total = 0.0
    for low in np.arange(10) / 10:
        inside = (scores >= low) & (scores < low + 0.1)
        total += abs((scores[inside] - labels[inside]).sum())
    assert estimate(m.ece(labels, scores, groups, n), n) == pytest.approx(total / len(labels))


@given(st.integers(0, 1000), st.integers(2, 60))
@settings(max_examples=50, deadline=None)
def test_rank_auroc_equals_scikit_learns(seed, n):
    rng = np.random.default_rng(seed)
    labels = np.append([0, 1], rng.integers(0, 2, n))
    scores = rng.integers(0, 6, (n + 2, 3)).astype(float)
    assert np.allclose(auroc_columns(labels, scores), [sk.roc_auc_score(labels, column) for column in scores.T])


def test_perfect_scores_get_an_honest_interval():
    groups = np.repeat(np.arange(20), 2)
    labels = np.tile([0.0, 1.0], 20)
    interval = share_interval(m.auroc(labels, labels, groups, 20), resample(20, 1000, 0))
    assert interval.estimate == interval.high == 1.0 and 0.7 < interval.low < 0.9


def test_interval_narrows_with_groups_not_with_rows():
    def width(n_groups, copies):
        labels, scores, groups, n = rows(n_groups, ties=False)
        labels, scores, groups = (np.repeat(v, copies) for v in (labels, scores, groups))
        interval = share_interval(m.auroc(labels, scores, groups, n), resample(n, 2000, 0))
        return interval.high - interval.low

    assert width(40, 10) == pytest.approx(width(40, 1), rel=0.02)
    assert width(160, 1) < 0.7 * width(40, 1)


def test_difference_is_paired():
    labels, scores, groups, n = rows(ties=False)
    one, two = (m.auroc(labels, s, groups, n) for s in (scores, scores + 1e-3 * labels))
    weights = resample(n, 2000, 0)
    value, error = difference(two, one, weights)
    assert 0 <= value < 0.01 and error < 0.1 * np.std(one(weights))


def test_threshold_is_within_condition_and_a_midpoint():
    labels = np.array([0, 0, 1, 1.0])
    scores = np.array([0.1, 0.2, 0.6, 0.9])
    assert choose_threshold(labels, scores, np.full(4, "truth")) == pytest.approx(0.4)
    assert np.isnan(choose_threshold(np.ones(4), scores, np.full(4, "truth")))
    assert choose_threshold(np.array([0, np.nan, 1, 1.0]), scores, np.full(4, "truth")) == pytest.approx(0.35)


def test_holm_against_a_reference():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.random(6) ** 3
        order = np.sort(p)
        expected = [
            max(min(1, (6 - j) * order[j]) for j in range(np.flatnonzero(order == value)[0] + 1)) for value in p
        ]
        assert np.allclose(holm(list(p)), expected)


def test_verdicts():
    hypothesis = parse_hypothesis("adapter+probe > base+probe@matched on ood")
    assert (hypothesis.better, hypothesis.worse, hypothesis.split) == ("adapter+probe", "base+probe@matched", "ood")

    def verdict(value, error, family=1):
        return judge([hypothesis] * family, [(value, error, 100)] * family, 0.02, 3)[0]

    assert verdict(0.10, 0.02)["verdict"] == "supported"
    assert verdict(-0.10, 0.02)["verdict"] == "refuted", "significant the other way is not support"
    assert verdict(0.0, 0.005)["verdict"] == "refuted"
    assert verdict(0.03, 0.02)["verdict"] == "undecided"
    assert verdict(0.045, 0.02)["verdict"] == "supported" and verdict(0.045, 0.02, 8)["verdict"] == "undecided"
    undecided = verdict(0.03, 0.02)
    assert undecided["groups_to_decide"] > 100 and undecided["low"] < 0 < undecided["high"]
    assert groups_to_decide(0.05, 0.02, 100, 0.02, 1) == int(np.ceil(100 * ((1.959964 + 0.841621) * 0.02 / 0.05) ** 2))


@pytest.mark.parametrize("text", ["adapter > base", "adapter > bose on test", "adapter < base on test", ""])
def test_bad_hypotheses(text):
    with pytest.raises(ConfigError, match="hypothesis"):
        parse_hypothesis(text)


class _Stub:
    def __init__(self, truth, condition):
        self.example, self.condition = type("E", (), {"truth": truth, "form": "question"}), condition
        self.instructed = truth if condition == "truth" else not truth


def test_axes_and_scores():
    prompts = [_Stub(t, c) for t in (True, False) for c in ("truth", "lie")]
    answered = np.array([True, False, True, False])
    labels = Labels.of(prompts, answered, np.array([True, True, True, False]))
    assert labels.by_axis["truth"].tolist() == [1, 1, 0, 0]
    assert labels.by_axis["instructed"].tolist() == [1, 0, 0, 1]
    assert labels.by_axis["behaviour"].tolist() == [1, 0, 1, 0]
    assert labels.by_axis["lie"][:3].tolist() == [0, 1, 1] and np.isnan(labels.by_axis["lie"][3])
    truth = np.array([0.9, 0.8, 0.1, 0.2])
    probe = Detector("base+probe", "logistic", 3, 0, "truth", truth)
    own = Detector("base", None, None, 0, None, truth, says=np.array([0.9, 0.2, 0.6, 0.3]))
    assert labels.score(probe, "lie") == pytest.approx([0.1, 0.8, 0.9, 0.2])
    assert labels.score(probe, "behaviour") is truth
    assert labels.score(own, "behaviour").tolist() == [0.9, 0.2, 0.6, 0.3]
    # A perfect truth score is a perfect lie score where the belief is known.
    assert sk.roc_auc_score(labels.by_axis["lie"][:3], labels.score(probe, "lie")[:3]) == 1.0


def frame(
    n_groups=24, seeds=(0, 1), arms=(("base", None), ("adapter+probe", "logistic"), ("base+probe@matched", "logistic"))
):
    rng = np.random.default_rng(0)
    found = []
    for split, datasets in (("test", ["a"]), ("ood", ["b", "c"])):
        for dataset in datasets:
            for arm, probe in arms:
                for seed in seeds:
                    labels = np.tile([1, 0, 0, 1], n_groups)
                    conditions = np.tile(["truth", "truth", "lie", "lie"], n_groups)
                    shift = {"base": 0.0, "adapter+probe": 2.0}.get(arm, 1.5)
                    score = rng.normal(size=len(labels)) + shift * labels
                    part = pd.DataFrame({"label": pd.array(labels, dtype="Int8"), "condition": conditions})
                    part["score"] = 1 / (1 + np.exp(-score))
                    part["group"] = np.repeat([f"g{i}" for i in range(n_groups)], 4)
                    part = part.assign(
                        dataset=dataset, split=split, arm=arm, probe=pd.Series([probe] * len(part), dtype="string"),
                        seed=seed, axis="truth", threshold=0.6, known=part["group"] < "g2", template=np.repeat(["x", "y"], 2 * n_groups),
                        recall_known=pd.array(np.where(part["group"] < "g5", part["group"] < "g3", None), dtype="boolean"), prompt_id=np.arange(len(part)).astype(str),
                    )  # fmt: skip
                    found.append(part)
    return pd.concat(found, ignore_index=True)


def test_results_are_means_within_condition_and_over_seeds():
    data = frame()
    hypotheses = [parse_hypothesis("adapter+probe > base+probe@matched on ood")]
    results, verdicts = evaluate(data, hypotheses, "logistic", 1000, 0.02)
    table = pd.DataFrame(results)

    def literal(split, arm, datasets, conditions=("truth", "lie")):
        part = data[(data["split"] == split) & (data["arm"] == arm)]
        return np.mean(
            [
                np.mean([
                    np.mean([sk.roc_auc_score(c["label"].astype(int), c["score"]) for _, c in cell.groupby("seed")])
                    for name, cell in part[part["dataset"] == d].groupby("condition") if name in conditions
                ])
                for d in datasets
            ]
        )  # fmt: skip

    def got(**keys):
        part = table[table["metric"] == "auroc"]
        for key, value in ({"filter": "all"} | keys).items():
            part = part[part[key] == value]
        (value,) = part["estimate"]
        return value

    assert got(split="test", arm="adapter+probe", dataset="a", condition="mean") == pytest.approx(
        literal("test", "adapter+probe", "a")
    )
    assert got(split="ood", arm="adapter+probe", dataset="mean", condition="mean") == pytest.approx(
        literal("ood", "adapter+probe", "bc")
    )
    assert got(split="ood", arm="adapter+probe", dataset="b", condition="lie") == pytest.approx(
        literal("ood", "adapter+probe", "b", ("lie",))
    )
    within = table[
        (table["metric"] == "auroc_within_template") & (table["arm"] == "adapter+probe") & (table["dataset"] == "a")
    ]
    part = data[(data["split"] == "test") & (data["arm"] == "adapter+probe")]
    cells = part.groupby(["condition", "seed", "template"])
    alone = np.mean([sk.roc_auc_score(cell["label"].astype(int), cell["score"]) for _, cell in cells])
    assert within.loc[within["condition"] == "mean", "estimate"].item() == pytest.approx(alone)
    recalled = data[(data["split"] == "ood") & (data["arm"] == "adapter+probe") & data["recall_known"].fillna(False)]
    cells = recalled.groupby(["dataset", "condition", "seed"])
    assert got(
        split="ood", arm="adapter+probe", dataset="mean", condition="mean", filter="recall_known"
    ) == pytest.approx(np.mean([sk.roc_auc_score(cell["label"].astype(int), cell["score"]) for _, cell in cells]))
    assert verdicts[0]["difference"] == pytest.approx(
        literal("ood", "adapter+probe", "bc") - literal("ood", "base+probe@matched", "bc")
    )
    assert set(table["n_groups"]) <= {24, 12} | set(table.loc[table["filter"] != "all", "n_groups"])
    assert ((table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"])).all()
    assert (table["seeds"] == 2).all()


def test_remembered_draws_are_never_anothers():
    """Draws were once kept by the id of a function, which Python uses again after the function is gone."""
    evaluation = Evaluation(frame(), "ood", 1000)
    for _ in range(50):
        for shift in (0.0, 1.0):
            kept = evaluation.remember(lambda w, shift=shift: np.full(len(w), shift))
            assert (kept(evaluation.weights) == shift).all()


def control_rows(n_groups=60, leak=False):
    rng = np.random.default_rng(0)
    parts = []
    for split in ("probe-train", "test"):
        for g in range(n_groups):
            for truth in (0, 1):
                for condition in ("truth", "lie"):
                    turn = f"question {g} {'obviously' if leak and truth else 'maybe'}"
                    parts.append(
                        {"dataset": "a", "split": split, "group": f"{split}{g}", "condition": condition, "template": f"t{rng.integers(3)}",
                         "demo_set": "d", "system_prompt": "none", "format": "plain", "text": turn, "turn": turn, "truth": truth, "answers": "+Yes -No"}
                    )  # fmt: skip
    return pd.DataFrame(parts)


def test_prompt_controls_are_met_where_nothing_leaks_and_only_there():
    for leak in (False, True):
        data = control_rows(leak=leak)
        records = prompt_only(data, np.flatnonzero(data["split"] == "probe-train"))
        met = {r["control"]: r["met"] for r in records}
        assert met["prompt identity"]
        assert met["words only (TF-IDF)"] == (not leak)
        assert met["length only"] == (not leak)
    assert chance_reach(60) == pytest.approx(0.103, abs=0.002)


def test_shuffled_labels_are_at_chance():
    data = control_rows()
    truth = data["truth"].to_numpy()
    X = np.random.default_rng(0).normal(size=(len(data), 30)) + 2 * truth[:, None]
    fit = np.flatnonzero(data["split"] == "probe-train")
    from adapterprobe import probes

    def again(labels):
        return probes.make("logistic").fit(X[fit], labels).decision_function(X)

    draws = shuffled_labels(data, fit, again, 100, 0)["test"]
    assert abs(draws.mean() - 0.5) < 0.1 and draws.std() > 0.02
    real = probes.make("logistic").fit(X[fit], truth[fit]).decision_function(X)
    assert split_auroc(data, real[:, None], "test")[0] > np.quantile(draws, 0.95)


def test_columns_are_the_contract():
    assert COLUMNS == [
        "dataset",
        "split",
        "prompt_id",
        "example_id",
        "group",
        "condition",
        "template",
        "format",
        "system_prompt",
        "demo_set",
        "shots",
        "form",
        "known",
        "axis",
        "label",
        "train_axis",
        "arm",
        "probe",
        "layer",
        "seed",
        "data_seed",
        "score",
        "threshold",
        "recall_known",
    ]


def simulated(rng, n_groups, aurocs, correlation):
    """Scores of several arms on groups of one positive and one negative row."""
    labels = np.tile([1.0, 0.0], n_groups)
    groups = np.repeat(np.arange(n_groups), 2)
    common = rng.standard_normal(2 * n_groups)
    found = []
    for value in aurocs:
        noise = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal(2 * n_groups)
        found.append(m.auroc(labels, np.sqrt(2) * stats.norm.ppf(value) * labels + noise, groups, n_groups))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [30, 100, 300])
@pytest.mark.parametrize("auroc", [0.5, 0.7, 0.85, 0.97])
def test_interval_coverage(n_groups, auroc):
    rng = np.random.default_rng([n_groups, int(auroc * 100)])
    weights = resample(n_groups, 2000, 0)
    intervals = [share_interval(simulated(rng, n_groups, [auroc], 0.0)[0], weights) for _ in range(2000)]
    covered = np.mean([i.low <= auroc <= i.high for i in intervals])
    print(f"{n_groups} groups, AUROC {auroc}: {covered:.3f}")
    assert 0.92 <= covered <= 0.98


@pytest.mark.slow
def test_equal_arms_are_rarely_told_apart():
    rng = np.random.default_rng(0)
    weights = resample(100, 2000, 0)
    hypotheses = [parse_hypothesis("adapter+probe > adapter on test")] * 8
    false = 0
    for _ in range(1000):
        measured = [(*difference(*simulated(rng, 100, [0.85, 0.85], 0.5), weights), 100) for _ in hypotheses]
        false += any(r["verdict"] == "supported" for r in judge(hypotheses, measured, 0.02, 3))
    print(f"any false 'supported' in {false} of 1000")
    assert false <= 50


@pytest.mark.slow
def test_power():
    rng = np.random.default_rng(0)
    weights = resample(300, 2000, 0)
    hypothesis = [parse_hypothesis("adapter+probe > adapter on test")]
    found = 0
    for _ in range(1000):
        worse, better = simulated(rng, 300, [0.85, 0.90], 0.5)
        found += judge(hypothesis, [(*difference(better, worse, weights), 300)], 0.02, 3)[0]["verdict"] == "supported"
    print(f"supported in {found} of 1000")
    assert found >= 800


def test_gaps_and_carried_thresholds():
    data = frame()
    results, _ = evaluate(data, [], "logistic", 1000, 0.02)
    table = pd.DataFrame(results)

    def mean_auroc(split, dataset, arm):
        part = data[(data["split"] == split) & (data["dataset"] == dataset) & (data["arm"] == arm)]
        cells = part.groupby(["condition", "seed"])
        return np.mean([sk.roc_auc_score(c["label"].astype(int), c["score"]) for _, c in cells])

    gaps = table[table["metric"] == "auroc_gap"]
    assert set(gaps["dataset"]) == {"b", "c"} and set(gaps["arm"]) == set(data["arm"])
    mine = gaps[(gaps["arm"] == "adapter+probe") & (gaps["dataset"] == "b")].iloc[0]
    expected = mean_auroc("test", "a", "adapter+probe") - mean_auroc("ood", "b", "adapter+probe")
    assert mine["estimate"] == pytest.approx(expected) and mine["low"] < expected < mine["high"]
    alarms = table[(table["metric"] == "false_positive_rate") & (table["arm"] == "adapter+probe")]
    here = alarms[(alarms["dataset"] == "b") & (alarms["condition"] == "truth")].iloc[0]
    part = data[(data["dataset"] == "b") & (data["arm"] == "adapter+probe") & (data["condition"] == "truth")]
    rates = [(c.loc[c["label"] == 0, "score"] > 0.6).mean() for _, c in part.groupby("seed")]
    assert here["estimate"] == pytest.approx(np.mean(rates))


def test_gap_of_one_and_the_same_questions_is_surely_small():
    """Groups that stand on both sides are resampled as one: equal scores leave no doubt."""
    data = frame(arms=(("adapter+probe", "logistic"),), seeds=(0,))
    test = data[data["split"] == "test"]
    both = pd.concat([test, test.assign(split="ood", dataset="twin")])
    (gap,) = [r for r in evaluate(both, [], "logistic", 1000, 0.02)[0] if r["metric"] == "auroc_gap"]
    assert gap["estimate"] == 0 and gap["low"] == gap["high"] == 0


def test_recipe_needs_five_seeds():
    hypotheses = [parse_hypothesis("adapter+probe > base+probe@matched on test")]
    few = evaluate(frame(seeds=(0, 1)), hypotheses, "logistic", 1000, 0.02)[1][0]
    assert few["recipe_low"] is None and len(few["by_seed"]) == 2
    data = frame(seeds=range(5))
    many = evaluate(data, hypotheses, "logistic", 1000, 0.02)[1][0]
    reach = stats.t.ppf(0.975, 4) * np.std(many["by_seed"], ddof=1) / np.sqrt(5)
    assert many["recipe_high"] - many["recipe_low"] == pytest.approx(2 * reach)
    assert np.mean(many["by_seed"]) == pytest.approx(many["difference"])


def test_controls_that_must_be_beaten():
    data = frame(arms=(("adapter+probe", "logistic"), ("adapter", None)), seeds=(0,))
    worthless = data[data["arm"] == "adapter+probe"].assign(arm="random adapter+probe")
    worthless["score"] = np.random.default_rng(1).random(len(worthless))
    equal = data[data["arm"] == "adapter"].assign(arm="random adapter")
    both = pd.concat([data, worthless, equal])
    pairs = [("adapter+probe", "random adapter+probe"), ("adapter", "random adapter")]
    records = {(r["arm"], r["split"]): r for r in control_comparisons(both, pairs, "logistic", 1000)}
    assert records["adapter+probe", "test"]["met"] and not records["adapter", "test"]["met"]
    assert records["adapter", "ood"]["difference"] == 0
    assert records["adapter+probe", "test"]["control"] == "random adapter"


def test_asked_otherwise_is_held_against_the_same_groups():
    data = frame(arms=(("adapter+probe", "logistic"),), seeds=(0,))
    test = data[data["split"] == "test"]
    some = test[test["group"] < "g15"].assign(shift="negated")
    turned = some.assign(score=1 - some["score"])
    (same,) = shift_records(data, some, "logistic", 1000)
    assert same["difference"] == 0 and same["met"] and same["n_groups"] == some["group"].nunique()
    (other,) = shift_records(data, turned, "logistic", 1000)
    assert other["auroc"] == pytest.approx(1 - other["as_asked"]) and not other["met"] and other["high"] < 0.5
