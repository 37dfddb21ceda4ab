"""Features centred set by set: what a set adds to all its rows is told from what a row says."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from adapterprobe import probes
from adapterprobe.probes import load_probe, save_probe
from adapterprobe.probes.centring import FEW, SetCentring, scores_by_set
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.select import Search, fitted_probes, scores_of, select_probe


def shifted_sets(sets: int = 6, rows: int = 80, width: int = 24, seed: int = 0):
    """(X, y, sets): truth along the first axis; every set is moved along it too, and holds more of one label the further it is moved."""
    rng = np.random.default_rng(seed)
    X, y, names = [], [], []
    for number in range(sets):
        up = number % 2
        label = (rng.random(rows) < (0.7 if up else 0.3)).astype(int)
        states = rng.standard_normal((rows, width))
        states[:, 0] += 2.0 * label - (8.0 if up else -8.0)
        states[:, 1:4] += rng.standard_normal(3) * 5
        X.append(states)
        y.append(label)
        names += [f"set {number}"] * rows
    return np.concatenate(X), np.concatenate(y), np.array(names)


def test_a_probe_that_knows_its_sets_is_not_led_by_them():
    X, y, sets = shifted_sets()
    fit = np.isin(sets, ["set 0", "set 1", "set 2", "set 3"])
    plain = probes.make("mass_mean").fit(X[fit], y[fit])
    centred = probes.make("mass_mean").fit(X[fit], y[fit], sets=sets[fit])
    for name in ("set 4", "set 5"):
        here = sets == name
        # The sets' shift goes against the truth, so that a probe that does not know them is turned round.
        assert roc_auc_score(y[here], plain.decision_function(X[here])) < 0.3
        assert roc_auc_score(y[here], centred.decision_function(X[here])) > 0.8
        # By its own mean its threshold holds too; by the training's it does not.
        own = centred.centred_on(X[here])
        assert balanced_accuracy_score(y[here], own.predict(X[here])) > 0.7
        assert balanced_accuracy_score(y[here], centred.predict(X[here])) < 0.6
    assert not plain.is_centred
    with pytest.raises(ValueError, match="fitted without sets"):
        plain.centred_on(X)
    with pytest.raises(ValueError, match="are no set of a probe"):
        centred.centred_on(X[:, :3])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["logistic", "mass_mean", "lda"])
def test_centring_is_subtraction_of_means(name, scaled, tmp_path):
    X, y, sets = shifted_sets(sets=3)
    by_hand = X.copy()
    means, spreads = [], []
    for one in np.unique(sets):
        here = sets == one
        means.append(X[here].mean(0))
        spreads.append(X[here].std(0) if scaled else np.ones(X.shape[1]))
        by_hand[here] = (X[here] - means[-1]) / spreads[-1]
    expected = probes.make(name).fit(by_hand, y)
    found = probes.make(name).fit(X, y, sets=sets, scaled=scaled)
    new = np.random.default_rng(1).standard_normal((9, X.shape[1]))
    moved = (new - np.mean(means, 0)) / np.mean(spreads, 0)
    assert_allclose(found.decision_function(new), expected.decision_function(moved), atol=1e-8)
    own = found.centred_on(new)
    alone = (new - new.mean(0)) / (new.std(0) if scaled else 1.0)
    assert_allclose(own.decision_function(new), expected.decision_function(alone), atol=1e-8)
    # What is saved centres as before, and what was fitted again without sets does not.
    save_probe(tmp_path / "probe", found)
    again, _ = load_probe(tmp_path / "probe")
    assert_array_equal(again.decision_function(new), found.decision_function(new))
    assert_allclose(found.state_direction, expected.direction / np.mean(spreads, 0))
    found.fit(X, y)
    assert not found.is_centred
    assert_allclose(found.decision_function(new), probes.make(name).fit(X, y).decision_function(new))


def test_sets_are_checked():
    X, y, sets = shifted_sets(sets=2)
    with pytest.raises(ValueError, match=r"sets has shape \(5,\), expected \(160,\)"):
        probes.make("logistic").fit(X, y, sets=sets[:5])


def test_tokens_that_are_not_there_stay_away():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 5, 3)) + 4
    X[:20, :2] = 0
    moved = SetCentring.of(X, np.zeros(40), padded=True).apply(X)
    assert (moved[:20, :2] == 0).all()
    assert_allclose(moved[X.any(-1)].mean(0), 0, atol=1e-12)


def test_a_few_rows_of_other_groups_centre_a_new_set():
    X, y, sets = shifted_sets(rows=200)
    fit = np.isin(sets, ["set 0", "set 1"])
    probe = probes.make("mass_mean").fit(X[fit], y[fit], sets=sets[fit])
    here = np.flatnonzero(~fit)
    groups = np.arange(len(X)) // 2
    scores = {
        way: scores_by_set(probe, X[here], sets[here], way, groups=groups[here]) for way in ("training", "few", "own")
    }
    assert_allclose(scores["training"], probe.decision_function(X[here]))
    for name in np.unique(sets[here]):
        mine = sets[here] == name
        assert_allclose(scores["own"][mine], probe.centred_on(X[here][mine]).decision_function(X[here][mine]))
        few = probe.decision_function(X[here][mine]) - scores["few"][mine]
        # Two centres for each set, one for each half of its groups, and no more rows than were said.
        assert len(np.unique(np.round(few, 9))) == 2
    # A row's own group never moves its score, as it does where all rows are used.
    changed = X.copy()
    changed[here[0]] += 100
    changed[here[1]] += 100
    again = {way: scores_by_set(probe, changed[here], sets[here], way, groups=groups[here]) for way in ("few", "own")}
    moved = np.round(np.abs((again["few"] - scores["few"]) - (changed[here] - X[here]) @ probe.direction), 6) > 0
    assert not moved[:2].any()
    assert (np.abs(again["own"] - scores["own"])[2:200] > 1e-6).all()
    assert FEW < 100


def test_layers_side_by_side_are_centred_as_layers_in_depth():
    rng = np.random.default_rng(0)
    X, y, sets = rng.standard_normal((60, 3, 5)) + 7, np.arange(60) % 2, np.repeat(["a", "b", "c"], 20)
    probe = probes.make("stack").fit(X, y, sets=sets)
    assert_allclose(probe.decision_function(X.reshape(60, -1)), probe.decision_function(X))


@pytest.mark.parametrize("scaled", [False, True])
def test_single_tokens_are_centred_as_rows_are(scaled):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4, 5)) * 2 + 3, np.arange(60) % 2
    X[..., 0] += 2 * y[:, None]
    probe = probes.make("token_logistic").fit(X, y, sets=np.repeat(["a", "b", "c"], 20), scaled=scaled)
    assert_allclose(probe.token_log_odds(X).mean(1), probe.decision_function(X), atol=1e-9)


def test_small_sets_are_centred_as_the_others_are_on_average():
    X, _, sets = shifted_sets(sets=3)
    names = sets.copy()
    names[:3] = "three rows"
    centring = SetCentring.of(X, names)
    assert set(centring.sets) == {"set 0", "set 1", "set 2"}
    assert_allclose(centring.apply(X, names)[:3], X[:3] - centring.centre)
    alone = SetCentring.of(X[:5], ["x"] * 5)
    assert not alone.sets and np.allclose(alone.centre, X[:5].mean(0))


def test_a_fold_knows_nothing_of_the_wording_that_it_leaves_out():
    """The left-out wording's mean is in no centre that its rows are judged by."""
    X, y, sets = shifted_sets(sets=2)
    X[sets == "set 1"] += 1000
    rows = Rows(y, np.arange(160), np.arange(0), np.full(160, "truth"), np.arange(160) // 2, wordings=sets, sets=sets)
    how = Search([0.1], 2, "wordings", centre="training")
    kept, judged = np.flatnonzero(sets == "set 0"), np.flatnonzero(sets == "set 1")
    ((probe,), centring) = fitted_probes("mass_mean", [{}], X, rows, np.arange(160), how)
    scores = scores_of(probe, X, rows, judged, how, centring, kept)
    expected = probe.centred_on(X[kept]).decision_function(X[judged])
    assert_allclose(scores, expected)


def test_a_set_of_a_few_rows_is_centred_by_the_training():
    X, y, sets = shifted_sets()
    fit = sets != "set 5"
    probe = probes.make("mass_mean").fit(X[fit], y[fit], sets=sets[fit])
    three = X[~fit][:3]
    assert_allclose(scores_by_set(probe, three, ["new"] * 3, "own"), probe.decision_function(three))


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("way", ["training", "few", "own"])
def test_the_search_centres_what_it_fits_and_judges(way, folds):
    X, y, sets = shifted_sets()
    groups = np.arange(len(X)) // 2
    fit, select, test = (
        np.flatnonzero(np.isin(sets, names)) for names in (["set 0", "set 1", "set 2"], ["set 3"], ["set 4", "set 5"])
    )
    rows = Rows(y, fit, select, np.full(len(y), "truth"), groups, sets=sets)
    layers = {0: np.random.default_rng(3).standard_normal(X.shape), 1: X}
    chosen = select_probe("mass_mean", layers.__getitem__, [0, 1], rows, Search([0.1], folds=folds, centre=way))
    assert chosen.best.layer == 1 and chosen.best.probe.is_centred
    right = balanced_accuracy_score(y[test], chosen.best.scores[test] > 0.5)
    assert right < 0.6 if way == "training" else right > 0.7
    # What is judged is scored as the probe that is kept scores it, whatever else the run held.
    kept, part = chosen.best.probe, np.flatnonzero(sets == "set 4")
    by = kept.centred_on(X[part]) if way == "own" else kept
    if way != "few":
        assert_allclose(chosen.best.scores[part], by.predict_proba(X[part])[:, 1], atol=1e-9)
    # Labels of what is judged change nothing.
    flipped = y.copy()
    flipped[test] = 1 - flipped[test]
    again = select_probe(
        "mass_mean", layers.__getitem__, [0, 1], Rows(flipped, fit, select, rows.conditions, groups, sets=sets),
        Search([0.1], folds=folds, centre=way),
    )  # fmt: skip
    assert_array_equal(again.best.scores, chosen.best.scores)


def test_ttpd_centres_each_set_as_its_authors_do():
    """t_G by least squares on states centred within topic x polarity, written out here with the closed form."""
    rng = np.random.default_rng(0)
    X, y, polarity, sets = [], [], [], []
    truth_direction, turned = rng.standard_normal((2, 20))
    for topic in range(4):
        for sign in (1, -1):
            label = (rng.random(60) < (0.2 + 0.2 * topic)).astype(int)
            states = rng.standard_normal((60, 20)) * 0.5 + rng.standard_normal(20) * 4
            states += np.outer(2 * label - 1, truth_direction + sign * turned)
            X.append(states)
            y.append(label)
            polarity += [sign] * 60
            sets += [f"{topic} {sign}"] * 60
    X, y, polarity, sets = np.concatenate(X), np.concatenate(y), np.array(polarity), np.array(sets)
    design = np.column_stack([2.0 * y - 1, (2.0 * y - 1) * polarity])
    centred = X.copy()
    for name in np.unique(sets):
        centred[sets == name] -= X[sets == name].mean(0)
        design[sets == name] -= design[sets == name].mean(0)
    expected = np.linalg.inv(design.T @ design) @ design.T @ centred
    with_sets = probes.make("ttpd").fit(X, y, polarity=polarity, sets=sets)
    assert_allclose(with_sets.directions_[0], expected[0], atol=1e-9)

    def cosine(found):
        return found @ truth_direction / np.linalg.norm(found) / np.linalg.norm(truth_direction)

    without = probes.make("ttpd").fit(X, y, polarity=polarity)
    assert cosine(with_sets.directions_[0]) > 0.98 > cosine(without.directions_[0])
    # It is not centred otherwise: it scores states as they are.
    assert not with_sets.is_centred
