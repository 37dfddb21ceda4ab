"""Foretelling what the model will say: intervals cover what they promise, and are refused where too few groups calibrate."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from adapterprobe.analyses.answer_prediction import answer_prediction_records

SPLITS = {"probe-train": 60, "calibrate": 80, "test": 120}


def planted(seed, calibrate=80, level=0.8, shift=0.0):
    """A model whose p_positive follows one feature of its states, with noise; `shift` moves test away from the rest."""
    rng = np.random.default_rng(seed)
    splits = np.repeat(list(SPLITS), [60, calibrate, 120])
    groups = np.array([f"g{i}" for i in range(len(splits))])
    X = rng.standard_normal((len(splits), 12))
    noise = rng.standard_normal(len(splits)) + shift * (splits == "test")
    says = expit(1.5 * X[:, 0] + noise)
    prompts = [
        SimpleNamespace(split=s, example=SimpleNamespace(dataset="d", group=g))
        for s, g in zip(splits, groups, strict=True)
    ]
    fit = SimpleNamespace(
        features=lambda layer: X,
        selection=SimpleNamespace(best=SimpleNamespace(layer=3)),
        rows=SimpleNamespace(fit=np.flatnonzero(splits == "probe-train")),
    )

    class Prompts(list):
        def where(self, split):
            return np.flatnonzero(splits == split).tolist()

        def column(self, of):
            return np.array([of(prompt) for prompt in self])

        @property
        def prompts(self):
            return self

    run = SimpleNamespace(
        config=SimpleNamespace(evaluate=SimpleNamespace(coverage=level)),
        encoded=Prompts(prompts),
        main_fit=lambda arm: fit,
    )
    return run, {"base+probe": says}


def test_intervals_cover_as_often_as_they_say():
    """Over many models: coverage on new rows is the nominal one, and an honest interval around it holds it."""
    coverage, holds, widths = [], [], []
    for seed in range(25):
        (record,) = answer_prediction_records(*planted(seed))
        coverage.append(record["coverage"])
        holds.append(record["low"] <= 0.8 <= record["high"])
        widths.append(record["width"])
    # Forty groups calibrate: coverage varies by some 0.06 from draw to draw, not its mean.
    assert np.mean(coverage) == pytest.approx(0.8, abs=0.04)
    assert 0.2 < np.mean(widths) < 0.8, "says something, and not everything"


def test_what_is_promised_is_told_apart_from_what_holds():
    (record,) = answer_prediction_records(*planted(0, shift=4.0))
    assert record["coverage"] < 0.6 and not record["holds"]


def test_too_few_groups_are_refused():
    (record,) = answer_prediction_records(*planted(0, calibrate=6, level=0.9))
    assert record["arm"] == "base+probe" and "3 groups calibrate, at least" in record["refused"]
