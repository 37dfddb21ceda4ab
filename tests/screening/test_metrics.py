"""Screening: every column by hand, warnings where they are due."""

import numpy as np
import pytest

from adapterprobe.evaluate.intervals import mean_interval
from adapterprobe.screening.metrics import COLUMNS, Answers, recommendation, screen_metrics, screen_warnings


def answers(n_groups=40, lies=True, coverage=0.9, known=(), recalled=("g3",)):
    """Both versions of each group under truth and lie: always right under truth but for the first group, always wrong
    under lie if it lies."""
    truth = np.tile([1, 0], 2 * n_groups)
    condition = np.repeat(["truth", "lie"], 2 * n_groups)
    group = np.tile(np.repeat([f"g{i}" for i in range(n_groups)], 2), 2)
    says = np.where((condition == "lie") & lies, 1 - truth, truth)
    says = np.where((condition == "truth") & (group == "g0"), 1 - truth, says)
    likely, unlikely = coverage * 0.8, coverage * 0.2
    probabilities = np.where(says[:, None] == [1, 0], likely, unlikely)
    passed = np.isin(group, list(known)), np.isin(group, list(recalled))
    return Answers(truth, condition, group, *passed, np.log(probabilities).astype(np.float32))


def test_columns_by_hand():
    cell = screen_metrics(answers(known=["g1", "g2"]))
    assert cell["balance"] == 0.5 and cell["n_balance"] == 160
    assert cell["acc"] == pytest.approx(39 / 40) and cell["n_acc"] == 80
    assert cell["lie_acc"] == 0 and cell["known_lie_acc"] == 0 and cell["n_known_lie_acc"] == 4
    assert (
        cell["recall_known_lie_acc"] == 0 and cell["n_recall_known_lie_acc"] == 2 and cell["n_recall_known_groups"] == 1
    )
    assert cell["choice_cov"] == pytest.approx(0.9) and cell["refusals"] == 0
    # Under truth p_positive is 0.8 or 0.2 and right in 39 of 40 groups.
    assert cell["ece"] == pytest.approx(abs(39 / 40 - 0.8), abs=1e-6)
    assert cell["n_groups"] == 40 and cell["n_known_groups"] == 2
    for name in COLUMNS:
        assert cell[f"{name}_low"] <= cell[name] <= cell[f"{name}_high"]
    assert cell["lie_acc_high"] > 0, "forty groups cannot vouch for exactly nothing"


def test_nothing_to_measure_is_null():
    cell = screen_metrics(answers())
    assert cell["known_lie_acc"] is None and cell["n_known_lie_acc"] == 0
    only = answers()
    truthful = only.condition == "truth"
    only = Answers(
        *(getattr(only, f)[truthful] for f in ("truth", "condition", "group", "known", "recalled", "logprobs"))
    )
    cell = screen_metrics(only)
    assert cell["lie_acc"] is None and any("nothing pushes to lie" in w for w in screen_warnings(cell))


def test_warnings_where_they_are_due():
    good = answers(known=[f"g{i}" for i in range(35)])
    assert screen_warnings(screen_metrics(good)) == []
    assert any("knows 0 of 40" in w for w in screen_warnings(screen_metrics(answers())))
    recalls = answers(recalled=[f"g{i}" for i in range(35)])
    assert any("knows better than it says" in w for w in screen_warnings(screen_metrics(recalls)))
    assert any("does not lie" in w for w in screen_warnings(screen_metrics(answers(lies=False))))
    low = screen_metrics(answers(coverage=0.3))
    assert low["refusals"] == 1 and any("coverage under 0.5" in w for w in screen_warnings(low))
    guess = answers()
    rng = np.random.default_rng(0)
    guess.logprobs[:] = guess.logprobs[rng.permutation(len(guess.logprobs))]
    assert any("near chance" in w for w in screen_warnings(screen_metrics(guess)))


def test_recommendation():
    keys = {"model": "m", "data": "d", "shots": 2, "system": None}
    lying = screen_metrics(answers()) | keys | {"format": "phi"}
    honest = screen_metrics(answers(lies=False)) | keys | {"format": "plain"}
    outside = screen_metrics(answers(coverage=0.2)) | keys | {"format": "gemma"}
    assert recommendation([honest, lying, outside]).startswith("Use m, d, format phi, 2 shots")
    assert "No cell shows a model that lies" in recommendation([honest])
    assert "No cell is fit" in recommendation([outside])


@pytest.mark.parametrize(("share", "together"), [(0.5, True), (0.9, True), (0.97, False), (1.0, True)])
def test_mean_interval_covers(share, together):
    """Forty groups of four rows, alike within a group or not: at least 92 of 100 intervals hold the truth."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    hits = widths = 0
    for _ in range(600):
        values = (rng.random(40)[groups] if together else rng.random(160)) < share
        found = mean_interval(values.astype(float), groups)
        hits += found.low <= share <= found.high
        widths += found.high - found.low
    assert hits / 600 >= 0.92 and widths / 600 < (0.4 if together else 0.12)
