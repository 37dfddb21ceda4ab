"""Calibration, conformal sets and thresholds: simulations of what they promise."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from adapterprobe.evaluate.calibration import calibration_records, calibrator, halves, reliability
from adapterprobe.evaluate.conformal import alarm_threshold, conformal_records, needed, one_row_per_group, sets
from adapterprobe.evaluate.guarantees import guarantee_records
from adapterprobe.evaluate.ood_detection import ood_detection_records


def drawn(rng, groups, rows=2, sharpness=1.0):
    """Scores that are right on average, rows of a group alike; labels one of each."""
    group = np.repeat(np.arange(groups), rows)
    label = np.tile([0, 1], groups * rows // 2)
    shared = rng.standard_normal(groups)[group]
    log_odds = 1.5 * (2 * label - 1) + 0.7 * shared + rng.standard_normal(len(group))
    return expit(sharpness * log_odds), label, group.astype(str)


def frame(rng, shift=0.0, groups=40, sharpness=1.0):
    parts = []
    for split, dataset in (("calibrate", "capitals"), ("test", "capitals"), ("ood", "elements")):
        score, label, group = drawn(rng, groups, sharpness=sharpness)
        moved = expit(logit(score) + (shift if split == "ood" else 0))
        parts.append(
            pd.DataFrame({"split": split, "dataset": dataset, "group": group + split, "label": label, "score": moved})
        )
    return pd.concat(parts, ignore_index=True).assign(arm="a", probe="p", seed=0, axis="truth")


def test_calibration_undoes_overconfidence():
    records = pd.DataFrame(calibration_records(frame(np.random.default_rng(0), groups=400, sharpness=12.0)))
    test = records[records["split"] == "test"].set_index("method")
    for method in ("Platt", "isotonic", "temperature"):
        assert test.loc[method, "ece"] < 0.5 * test.loc["as it is", "ece"]
        assert test.loc[method, "brier"] < test.loc["as it is", "brier"]
    assert test.loc["Platt", "fitted_on_groups"] == 200


def test_calibration_never_looks_at_judged_rows():
    rows = frame(np.random.default_rng(0))
    other = rows.copy()
    outside = other["split"] != "calibrate"
    other.loc[outside, "label"] = 1 - other.loc[outside, "label"]
    for before, after in zip(conformal_records([rows], 0.8, 0.2), conformal_records([other], 0.8, 0.2), strict=True):
        assert before.get("abstains") == after.get("abstains")


def test_platt_is_a_logistic_regression_of_log_odds():
    score, label, _ = drawn(np.random.default_rng(1), 200, sharpness=1.5)
    mapped = calibrator("Platt", score, label)(score)
    slope = np.diff(np.log(mapped / (1 - mapped))) / np.diff(np.log(score / (1 - score)))
    assert np.allclose(slope, slope[0], rtol=1e-3) and 0.3 < slope[0] < 1.5


def test_halves_share_no_group():
    groups = np.repeat(np.arange(9), 3).astype(str)
    first, second = halves(groups)
    assert not set(groups[first]) & set(groups[second]) and (first ^ second).all()
    assert len(set(groups[first])) == 4


def test_reliability_by_hand():
    bins = reliability(np.array([0, 1, 1, 1]), np.array([0.05, 0.95, 0.97, 1.0]))
    assert bins == [{"chance": 0.05, "share": 0.0, "n": 1}, {"chance": pytest.approx(2.92 / 3), "share": 1.0, "n": 3}]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("level", [0.7, 0.9])
def test_sets_cover_new_groups_as_promised(level, by_class):
    """On average over draws of what calibrates; of each class too, where that is promised."""
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        fit, new = drawn(rng, 25), drawn(rng, 100)
        found = sets(*fit, new[0], level, by_class)
        inside = found[np.arange(len(new[1])), new[1]]
        covered.append([inside.mean(), inside[new[1] == 0].mean(), inside[new[1] == 1].mean()])
    mean, error = np.mean(covered, axis=0), np.std(covered, axis=0) / np.sqrt(len(covered))
    for place in range(3) if by_class else range(1):
        assert mean[place] >= level - 3 * error[place]
        assert mean[place] <= level + 1 / 26 + 3 * error[place] + 0.01


def test_sets_by_class_help_where_classes_differ():
    """With few true rows, sets for the mixture leave these out; class-conditional ones do not."""
    groups = np.arange(2000).astype(str)
    half = np.arange(2000) < 1000
    covered = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        label = (rng.random(2000) < 0.1).astype(int)
        chance = expit((2 * label - 1) + 1.2 * rng.standard_normal(2000) - 2.2)
        found = [sets(chance[half], label[half], groups[half], chance[~half], 0.9, by) for by in (False, True)]
        covered.append([f[label[~half] == 1, 1].mean() for f in found])
    mixture, by_class = np.mean(covered, axis=0)
    assert mixture < 0.2 and by_class > 0.88


def test_thresholds_keep_their_rate():
    alarms = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        score, label, group = drawn(rng, 30)
        threshold = alarm_threshold(score[label == 0], group[label == 0], 0.1)
        new, truth, _ = drawn(rng, 200)
        alarms.append((new[truth == 0] > threshold).mean())
    assert np.mean(alarms) <= 0.1 + 3 * np.std(alarms) / 20
    assert np.mean(alarms) >= 0.05


def test_thresholds_by_hand_and_refused():
    scores, groups = np.arange(9) / 10, np.arange(9).astype(str)
    assert alarm_threshold(scores, groups, 0.1) == 0.8
    assert alarm_threshold(scores, groups, 0.2) == 0.7
    assert alarm_threshold(scores[:8], groups[:8], 0.1) is None
    assert [needed(rate) for rate in (0.1, 0.05, 0.2)] == [9, 19, 4]
    assert sets(scores, np.arange(9) % 2, groups, scores, 0.95, False) is None


def test_one_row_of_each_group():
    groups = np.array(["a", "b", "a", "c", "b"])
    mine = one_row_per_group(groups)
    assert sorted(groups[mine]) == ["a", "b", "c"] and (np.diff(mine) > 0).all()
    assert len({tuple(one_row_per_group(groups, seed)) for seed in range(20)}) > 1


def test_a_shift_is_said_to_break_the_promise():
    rows = frame(np.random.default_rng(3), shift=4.0, groups=80)
    records = pd.DataFrame(conformal_records([rows], 0.9, 0.1))
    kept = records[records["nominal"].isin([0.9, 0.1]) & records["split"].notna()].set_index(["kind", "split"])
    assert kept.loc[("sets", "test"), "holds"].all() and kept.loc[("threshold", "test"), "holds"].all()
    assert not kept.loc[("threshold", "ood"), "holds"].any()
    by_class = records[(records["method"] == "class-conditional") & (records["nominal"] == 0.9)].set_index("split")
    assert by_class.loc["ood", "coverage_0"] < 0.6 < by_class.loc["test", "coverage_0"]


def test_too_few_groups_are_refused_by_name():
    records = conformal_records([frame(np.random.default_rng(0), groups=16)], 0.9, 0.1)
    refused = {(r["kind"], r["nominal"]): r["refused"] for r in records if "refused" in r}
    assert refused["split", 0.9] == "8 groups, at least 10 needed for 0.9"
    assert refused["threshold", 0.1].startswith("8 groups of negatives, at least 9 needed")
    assert any(r.get("nominal") == 0.8 and "coverage" in r for r in records)


def test_records_of_all_detectors_are_means_over_seeds():
    rng = np.random.default_rng(0)
    one, two = frame(rng), frame(rng)
    two = two.assign(group=one["group"], label=one["label"], seed=1)
    own = one.assign(arm="base", probe=None)
    calibration, conformal = guarantee_records(pd.concat([one, two, own]), 0.8, 0.2)
    assert (
        {(r["arm"], r["probe"]) for r in calibration}
        == {("a", "p"), ("base", None)}
        == {(r["arm"], r["probe"]) for r in conformal}
    )
    alone = [calibration_records(part)[0]["brier"] for part in (one, two)]
    assert calibration[0]["brier"] == pytest.approx(np.mean(alone))


def test_flagging_finds_what_is_unlike():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "group": np.arange(120).astype(str),
            "split": ["test"] * 40 + ["ood"] * 80,
            "dataset": ["capitals"] * 40 + ["far"] * 40 + ["near"] * 40,
            "epistemic": rng.standard_normal(120) + np.repeat([0, 4, 0], 40),
            "aleatoric": rng.standard_normal(120),
            "latent_variance": np.nan,
        }
    ).assign(arm="a", probe="gpp", seed=0)
    found = {(r["dataset"], r["measure"]): r for r in ood_detection_records(rows, 1000)}
    assert len(found) == 4
    assert found["far", "epistemic"]["auroc"] > 0.95 and found["far", "epistemic"]["low"] > 0.9
    assert found["near", "epistemic"]["low"] < 0.5 < found["near", "epistemic"]["high"]
