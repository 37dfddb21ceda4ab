"""Probes: scikit-learn's conventions, independent references, positive and negative controls."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from adapterprobe import probes
from adapterprobe.errors import CacheError, ConfigError, DataError
from adapterprobe.probes.registry import search_space
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.scikit import ScikitProbe
from adapterprobe.probes.select import Search, select_probe
from planted import planted

EACH = pytest.mark.parametrize("name", probes.available())


QUICK = {
    "gp": {"steps": 25, "inducing": 16},
    "vae": {"steps": 100},
    "ccs": {"steps": 100},
    "conv": {"steps": 80, "lr": 0.01},
    "mlp": {"epochs": 50},
    "attention": {"steps": 80, "lr": 0.02},
}
"""Fewer steps, for checks that fit dozens of times on easy data."""


def not_kept(estimator):
    """scikit-learn wants unknown parameters to be refused as late as in `fit`; a wrapper refuses them at once."""
    refused = "check_do_not_raise_errors_in_init_or_set_params"
    return {refused: "unknown parameters are refused at once"} if isinstance(estimator, ScikitProbe) else {}


@parametrize_with_checks(
    [probes.make(name, **QUICK.get(name, {})) for name in (*probes.available(), "LinearSVC", "GaussianNB")],
    expected_failed_checks=not_kept,
)
def test_scikit_learn_estimator(estimator, check):
    check(estimator)


@EACH
@pytest.mark.parametrize("features", [16, 4096])
def test_finds_a_planted_direction_and_nothing_in_noise(name, features):
    # Without labels, more features than pairs are consistent in any direction: it takes pairs that lie far apart.
    X, y, _ = planted(600, features, strength=40.0 if name == "ccs" and features > 1000 else 6.0)
    found = roc_auc_score(y[400:], probes.make(name).fit(X[:400], y[:400]).decision_function(X[400:]))
    assert found > 0.85
    X, y, _ = planted(1200, features, strength=0.0, seed=1)
    found = roc_auc_score(y[400:], probes.make(name).fit(X[:400], y[:400]).decision_function(X[400:]))
    assert abs(found - 0.5) < 0.06


@EACH
def test_works_in_scikit_learn_tools(name):
    X, y, _ = planted()
    groups = np.repeat(np.arange(50), 4)
    piped = make_pipeline(StandardScaler(), probes.make(name))
    assert cross_val_score(piped, X, y, groups=groups, cv=GroupKFold(5), scoring="roc_auc").mean() > 0.9
    if name == "logistic":
        search = GridSearchCV(probes.make(name), {"C": [1e-3, 1.0]}, cv=3).fit(X, y)
        assert search.best_params_["C"] in (1e-3, 1.0)


@EACH
def test_saved_and_loaded(name, tmp_path):
    X, y, _ = planted()
    probe = probes.make(name).fit(X, y)
    probes.save_probe(tmp_path / "p", probe, layer=7)
    loaded, about = probes.load_probe(tmp_path / "p")
    assert np.array_equal(loaded.predict_proba(X), probe.predict_proba(X)) and about == {"layer": 7}
    content = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(CacheError, match="format 99"):
        probes.load_probe(tmp_path / "p")
    (tmp_path / "p.json").write_text(json.dumps(content))
    data = bytearray((tmp_path / "p.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "p.safetensors").write_bytes(data)
    with pytest.raises(CacheError, match="changed since it was saved"):
        probes.load_probe(tmp_path / "p")


def test_ones_own_probe():
    @probes.register("nearest_mean_of_this_test")
    class NearestMean(probes.Probe):
        def _fit(self, X, y, sample_weight):
            self.means_ = np.stack([X[y == label].mean(0) for label in (0, 1)])

        def _decide(self, X):
            gaps = ((X[:, None] - self.means_) ** 2).sum(-1)
            return gaps[:, 0] - gaps[:, 1]

    try:
        assert "nearest_mean_of_this_test" in probes.available()
        X, y, _ = planted()
        assert probes.make("nearest_mean_of_this_test").fit(X, y).score(X, y) > 0.8
        with pytest.raises(ConfigError, match="exists already"):
            probes.register("logistic")(NearestMean)
    finally:
        from adapterprobe.probes import registry

        del registry._REGISTRY["nearest_mean_of_this_test"]


def test_refusals():
    with pytest.raises(ConfigError, match="did you mean 'logistic'"):
        probes.make("logistik")
    with pytest.raises(ConfigError, match="its parameters are"):
        probes.make("logistic", gamma=1)


def selection_problem():
    """Layer 2 holds the truth on the fitted and the select rows; layer 5 holds it on the last rows alone."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    layers = {layer: rng.standard_normal((400, 20)) for layer in range(6)}
    layers[2][:300, 0] += 4 * labels[:300]
    layers[5][300:, 0] += 9 * labels[300:]
    return layers, labels


def rows_of(labels, **options):
    rows = np.arange(400)
    defaults = dict(
        labels=labels, fit=rows[:200], select=rows[200:300], conditions=np.full(400, "truth"), groups=rows // 4
    )
    return Rows(**(defaults | options))


def test_selection_never_looks_at_judged_rows():
    layers, labels = selection_problem()
    conditions = np.where(np.arange(400) % 4 < 2, "truth", "lie")
    strengths = [0.01, 1.0]
    rows = rows_of(labels, conditions=conditions)
    chosen = select_probe("logistic", layers.__getitem__, range(6), rows, Search(strengths))
    assert chosen.best.layer == 2 and chosen.tried == 12 and len(chosen.fits) == 6
    flipped = labels.copy()
    flipped[300:] = 1 - flipped[300:]
    again = select_probe(
        "logistic", layers.__getitem__, range(6), rows_of(flipped, conditions=conditions), Search(strengths)
    )
    assert again.best.layer == 2 and np.array_equal(again.best.scores, chosen.best.scores)


@EACH
def test_selection_by_folds_looks_at_fitted_rows_alone(name):
    layers, labels = selection_problem()
    elsewhere = labels.copy()
    elsewhere[200:] = np.random.default_rng(1).integers(0, 2, 200)
    rows = rows_of(elsewhere)
    quick = QUICK.get(name, {})
    chosen = select_probe(name, layers.__getitem__, (2, 5), rows, Search([0.1], folds=3), params=quick)
    assert chosen.best.layer == 2 and chosen.tried == 6 * len(search_space(name, [0.1]))
    # The judgement is that of scikit-learn's own cross-validation over the same folds.
    expected = cross_val_score(
        clone(chosen.best.probe),
        layers[2][:200],
        labels[:200],
        groups=rows.groups[:200],
        cv=GroupKFold(3),
        scoring="roc_auc",
    )
    assert chosen.best.select_auroc == pytest.approx(expected.mean(), abs=2e-3)
    with pytest.raises(DataError, match="lower select.folds"):
        select_probe(name, layers.__getitem__, [2], rows, Search([0.1], folds=99))


def test_selection_within_one_standard_error():
    """Of layers that cannot be told apart the earliest, and of penalties the strongest."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    layers = {layer: rng.standard_normal((400, 20)) for layer in range(4)}
    for layer in (1, 2, 3):
        layers[layer][:, 0] += 3 * labels
    strengths = [1e-3, 1e-2, 0.1]
    for folds in (0, 4):
        chosen = select_probe(
            "logistic", layers.__getitem__, range(4), rows_of(labels), Search(strengths, folds=folds, rule="one_se")
        )
        plain = select_probe("logistic", layers.__getitem__, range(4), rows_of(labels), Search(strengths, folds=folds))
        assert chosen.best.layer == 1 and chosen.best.error > 0
        assert chosen.best.select_auroc >= plain.best.select_auroc - max(fit.error for fit in chosen.fits)
        assert chosen.best.probe.C <= plain.fits[1].probe.C


def test_selection_keeps_fixed_parameters():
    layers, labels = selection_problem()
    chosen = select_probe(
        "logistic", layers.__getitem__, [2], rows_of(labels), Search([0.1, 1.0]), params={"C": 0.5, "scale": False}
    )
    assert chosen.tried == 1 and chosen.best.probe.get_params()["C"] == 0.5 and not chosen.best.probe.scale
    with pytest.raises(ConfigError, match="its parameters are"):
        select_probe("logistic", layers.__getitem__, [2], rows_of(labels), Search([0.1]), params={"gamma": 1})


def test_selection_of_a_probe_that_uses_depth_and_pairs():
    layers, labels = selection_problem()
    stack = np.stack([layers[layer] for layer in range(6)], axis=1)
    chosen = select_probe("conv", lambda layer: stack, [5], rows_of(labels), Search([0.1]))
    assert chosen.best.probe.depth_ == 6 and chosen.best.scores.shape == (400,)
    pairs = np.arange(400) // 2
    chosen = select_probe("ranking", layers.__getitem__, [2], rows_of(labels, pairs=pairs), Search([0.1], folds=4))
    alone = probes.make("ranking", C=0.1).fit(layers[2][:200], labels[:200], pairs=pairs[:200])
    assert np.allclose(chosen.best.probe.direction_, alone.direction_)


def test_selection_refuses_what_cannot_be_fitted():
    layers, labels = selection_problem()
    layers[1][7, 3] = np.nan
    with pytest.raises(DataError, match=r"layer 1: 1 rows have NaN or infinite features \(first: row 7\)"):
        select_probe("logistic", layers.__getitem__, range(3), rows_of(labels), Search([1.0]))
    with pytest.raises(DataError, match="only one class"):
        select_probe("logistic", layers.__getitem__, [0], rows_of(np.ones(400, int)), Search([1.0]))


def test_a_layer_that_is_the_same_everywhere_is_chance():
    layers, labels = selection_problem()
    layers[0][:] = 3.0
    chosen = select_probe("logistic", layers.__getitem__, range(4), rows_of(labels), Search([1.0]))
    assert chosen.fits[0].constant and (chosen.fits[0].scores == 0.5).all() and chosen.best.layer == 2
    with pytest.raises(DataError, match="all 20 features are constant over 200 rows"):
        select_probe("logistic", layers.__getitem__, [0], rows_of(labels), Search([1.0]))
