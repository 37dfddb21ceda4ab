"""Selection over groups and wordings, and probes over several layers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from adapterprobe import probes
from adapterprobe.config import ProbeConfig, RunConfig
from adapterprobe.detectors.features import feature_spec
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.probes.rows import Rows, fold_masks
from adapterprobe.probes.select import Search, select_probe


def asked_in_wordings(rows: int = 480, wordings: int = 4, width: int = 16):
    """Layer 1 tells the truth strongly, along an axis of each wording's own; layer 2 weakly, along one that all wordings share."""
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 2
    groups = np.arange(rows) // (2 * wordings)
    words = (np.arange(rows) // 2) % wordings
    layers = {layer: rng.standard_normal((rows, width)) for layer in (1, 2)}
    layers[1][np.arange(rows), words] += 6.0 * y
    layers[2][:, 0] += 1.5 * y
    return layers, Rows(y, np.arange(rows), np.arange(0), np.full(rows, "truth"), groups, wordings=words.astype(str))


def test_leaving_wordings_out_finds_what_they_share():
    layers, rows = asked_in_wordings()
    by = {
        h: select_probe("logistic", layers.__getitem__, [1, 2], rows, Search([0.01, 1.0], 3, h))
        for h in ("groups", "wordings")
    }
    assert by["groups"].best.layer == 1 and by["groups"].best.select_auroc > 0.95
    assert by["wordings"].best.layer == 2 and by["wordings"].fits[0].select_auroc < 0.65
    # 3 folds of groups, 4 wordings, 2 penalties, 2 layers.
    assert by["wordings"].tried == 3 * 4 * 2 * 2
    # What is kept is fitted on all rows, whatever it was chosen by.
    alone = probes.make("logistic", C=by["wordings"].best.probe.C).fit(layers[2], rows.labels)
    assert_allclose(by["wordings"].best.probe.direction, alone.direction)


def test_no_row_is_judged_by_a_fit_that_saw_its_group_or_its_wording():
    _, rows = asked_in_wordings()
    folds = fold_masks(rows, 3, "wordings")
    assert len(folds.kept) == 12 and folds.crossed
    for kept, judged in zip(folds.kept, folds.judged, strict=True):
        assert judged.any() and not (kept & judged).any()
        assert not set(rows.groups[kept]) & set(rows.groups[judged])
        assert not set(rows.wordings[kept]) & set(rows.wordings[judged])
    assert (folds.judged.sum(0) == 1).all(), "every row is judged once"


def test_one_wording_cannot_be_left_out():
    layers, rows = asked_in_wordings(wordings=1)
    with pytest.raises(DataError, match=r"what is fitted on has 1 \(0\); give elicit.templates"):
        select_probe("logistic", layers.__getitem__, [2], rows, Search([0.1], 3, "wordings"))
    with pytest.raises(ValueError, match="give select.folds"):
        RunConfig.model_validate({"select": {"hold_out": "wordings"}})


def spec_of(probe: str, **changes):
    config = RunConfig.model_validate({"probes": ["logistic", {"probe": probe, **changes}]})
    return feature_spec(ProbeConfig(probe=probe, **changes), config, 6)


def test_layers_mean_sees_the_mean_of_neighbours():
    states = np.random.default_rng(0).standard_normal((7, 10, 4))
    seen = spec_of("layers_mean")
    assert seen.layers == tuple(range(7))
    features = seen.of(states.__getitem__)
    assert_allclose(features(3), states[2:5].mean(0))
    assert_allclose(features(0), states[:2].mean(0))
    assert_allclose(features(6), states[5:].mean(0))
    assert_allclose(seen.at(3).of(states.__getitem__)(3), states[2:5].mean(0))
    assert seen.seen(6) == (5, 6) and seen.at(6).layers == (6,)
    with pytest.raises(ConfigError, match="leave features out"):
        spec_of("layers_mean", features="concat")
    with pytest.raises(ConfigError, match="leave features out"):
        spec_of("layers_mean", features="layer")


def layers_with_noise(rows: int = 600, layers: int = 5, width: int = 12):
    """The same weak signal in every layer but the first, each with noise of its own; the first is noise alone."""
    rng = np.random.default_rng(1)
    y = np.arange(rows) % 2
    stack = rng.standard_normal((rows, layers, width))
    stack[:, 1:, 0] += 0.8 * y[:, None]
    return stack, y


def test_layers_together_tell_more_than_the_best_of_them():
    stack, y = layers_with_noise()
    fit, test = np.arange(400), np.arange(400, 600)
    groups = np.arange(600) // 2
    one = probes.make("logistic", C=0.1)
    alone = max(
        roc_auc_score(y[test], one.fit(stack[fit, layer], y[fit]).decision_function(stack[test, layer]))
        for layer in range(5)
    )
    stacked = probes.make("stack", C=0.1).fit(stack[fit], y[fit], groups=groups[fit])
    found = roc_auc_score(y[test], stacked.decision_function(stack[test]))
    assert found > alone + 0.05
    assert (stacked.layer_weights_ >= 0).all() and stacked.layer_weights_[0] < stacked.layer_weights_[1:].min()
    mean = stack[:, 1:4].mean(1)
    averaged = one.fit(mean[fit], y[fit]).decision_function(mean[test])
    assert roc_auc_score(y[test], averaged) > alone + 0.02


def test_a_stack_weighs_layers_by_rows_that_they_were_not_fitted_on():
    """A layer of very many features fits its rows perfectly, and knows nothing of others: it must weigh little."""
    rng = np.random.default_rng(2)
    y = np.arange(120) % 2
    stack = rng.standard_normal((120, 2, 300))
    stack[:, 1, 0] += 8 * y
    stack[:, 1, 1:] *= 0.01
    stacked = probes.make("stack", C=1.0).fit(stack, y, groups=np.arange(120) // 2)
    alone = probes.make("logistic", C=1.0).fit(stack[:, 0], y)
    assert roc_auc_score(y, alone.decision_function(stack[:, 0])) == 1.0
    assert stacked.layer_weights_[0] < 0.2 * stacked.layer_weights_[1]


def test_a_stack_takes_all_layers_and_a_convolution_eight():
    config = RunConfig.model_validate({"probes": ["logistic", "stack", "conv"]})
    stack, conv = (feature_spec(ProbeConfig(probe=name), config, 30) for name in ("stack", "conv"))
    assert stack.several == tuple(range(31)) and len(conv.several) == 8 and stack.deep


def test_a_stack_without_folds_says_so():
    with pytest.raises(ValueError, match="leave no folds with both classes"):
        probes.make("stack").fit(
            np.random.default_rng(0).standard_normal((6, 3)), [0, 0, 0, 1, 1, 1], groups=[1, 1, 1, 2, 2, 2]
        )


@pytest.mark.parametrize("name", ["stack", "group_dro", "two_directions"])
def test_settings_that_share_work_give_what_each_gives_alone(name):
    rng = np.random.default_rng(3)
    y = np.arange(120) % 2
    X = rng.standard_normal((120, 3, 8)) if name == "stack" else rng.standard_normal((120, 8))
    X[..., 0] += (1.5 * y).reshape(-1, *[1] * (X.ndim - 2))
    polarity = np.where(np.arange(120) % 4 < 2, 1, -1)
    extras = {"groups": np.arange(120) // 2, "sets": (np.arange(120) % 3).astype(str), "polarity": polarity}
    kept = np.stack([np.arange(120) >= 40, np.arange(120) < 80])
    settings = [{"C": 0.01}, {"C": 1.0}]
    together = probes.registry.fit_settings(name, settings, X, y, kept, **extras)
    for place, probe in enumerate(together):
        mask, params = kept[place // 2], settings[place % 2]
        mine = {key: extras[key][mask] for key in probes.lookup(name).wants}
        alone = probes.make(name, **params).fit(X[mask], y[mask], **mine)
        assert_allclose(probe.decision_function(X), alone.decision_function(X), atol=1e-4)
        assert probe.get_params() == alone.get_params()
