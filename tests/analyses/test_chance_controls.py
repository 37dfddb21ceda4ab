"""Controls by chance: shuffled labels and random directions are at 0.5 where there is nothing, and are not where there is."""

import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adapterprobe.analyses.learning_curves import nested_judgements
from adapterprobe.analyses.probe_controls import random_directions, shuffled_labels
from adapterprobe.config import ProbeConfig, RunConfig
from adapterprobe.detectors.features import FeatureSpec
from adapterprobe.evaluate.controls import chance_records
from adapterprobe.probes import make
from adapterprobe.probes.rows import Rows, auroc_within

WIDTH, FIT, TEST = 24, 160, 160
PROBE = functools.partial(make, "logistic", C=0.01)


def planted(signal, seed=0):
    rng = np.random.default_rng(seed)
    count = FIT + TEST
    truth = np.arange(count) % 2
    X = rng.standard_normal((count, WIDTH))
    X[:, 0] += signal * (2 * truth - 1)
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "condition": np.where(np.arange(count) // 2 % 2, "truth", "lie"),
            "split": np.where(np.arange(count) < FIT, "probe-train", "test"),
            "truth": truth,
        }
    )
    return frame, X, np.arange(FIT)


def test_shuffled_labels_are_at_chance_though_the_true_ones_are_learned():
    frame, X, fit = planted(2.0)
    drawn = shuffled_labels(frame, fit, lambda labels: PROBE().fit(X[fit], labels).decision_function(X), 100, 0)["test"]
    assert len(drawn) == 100 and abs(drawn.mean() - 0.5) < 0.1 and drawn.std() > 0.05
    real = PROBE().fit(X[fit], frame["truth"].to_numpy()[fit]).decision_function(X)
    test = (frame["split"] == "test").to_numpy()
    detector = auroc_within(frame["truth"].to_numpy()[test], real[test], frame["condition"].to_numpy()[test])
    (record,) = chance_records("shuffled labels", "base+probe", "logistic", {"test": drawn}, {"test": detector})
    assert detector > 0.95 and record["met"]
    assert record["low"] <= record["auroc"] <= record["high"] and record["draws"] == 100
    (record,) = chance_records("shuffled labels", "base+probe", "logistic", {"test": drawn}, {"test": 0.55})
    assert not record["met"], "a detector within the draws is told"


def test_random_directions_find_what_is_everywhere_and_nothing_where_there_is_nothing():
    frame, X, fit = planted(0.0)
    nothing = random_directions(frame, X, fit, fit, 200, 0)["test"]
    assert abs(nothing.mean() - 0.5) < 0.03
    everywhere = X + 1.5 * (2 * frame["truth"].to_numpy()[:, None] - 1)
    found = random_directions(frame, everywhere, fit, fit, 200, 0)["test"]
    assert found.mean() > 0.8, "a label that all features carry needs no probe, and the control says so"


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.38, 0.62), (1.0, 0.85, 1.0)])
def test_nested_folds_judge_what_they_did_not_choose_by(signal, low, high):
    """Over many layers of noise the best one looks good on what it was chosen by; nested folds do not believe it."""
    nested, chosen = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        count = 96
        labels = np.arange(count) % 2
        layers = {layer: rng.standard_normal((count, WIDTH)) for layer in range(12)}
        layers[5][:, 0] += signal * 2 * (2 * labels - 1)
        rows = Rows(
            labels, np.arange(count), np.arange(count), np.full(count, "truth"), np.repeat(np.arange(count // 2), 2)
        )
        config = RunConfig.model_validate({"select": {"nested": 4, "folds": 3, "strengths": [0.01, 1.0]}})
        spec = FeatureSpec(tuple(layers))
        fit = SimpleNamespace(arm="base+probe", probe="logistic", rows=rows, features=layers.__getitem__)
        run = SimpleNamespace(
            config=config, fits_of=lambda fit=fit, **_: [fit], main_probe="logistic", lowest_seed=0,
            feature_specs={"logistic": spec},
        )  # fmt: skip
        (record,) = nested_judgements(run)
        assert record["folds"] == 4 and record["error"] > 0
        nested.append(record["auroc"])
        from adapterprobe.detectors.search_cache import SearchJob

        job = SearchJob(ProbeConfig(probe="logistic"), spec, rows, config.select)
        chosen.append(job.search(layers.__getitem__).best.select_auroc)
    assert low < np.mean(nested) < high
    if not signal:
        assert np.mean(chosen) > np.mean(nested) + 0.05, "what it was chosen by flatters it"
