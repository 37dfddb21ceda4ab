"""The hypothesis `probe > withheld` by simulation: a leak in the context is caught, and what the reply adds is found."""

import numpy as np
import pandas as pd
import pytest

from adapterprobe.detectors.fit import ArmFit, probe_detectors
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.schema import WITHHELD
from adapterprobe.evaluate.scores import Labels, predictions
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.select import Search, select_probe

GROUPS = {"probe-train": 40, "select": 16, "calibrate": 16, "test": 50}
WIDTH = 12
HYPOTHESES = [parse_hypothesis(f"base+probe > {WITHHELD} on test")]


def simulated(seed: int, leak: float, reply: float):
    """A run's verdict and AUROCs where the state in front of the reply tells the label by `leak`, and the reply adds `reply`.

    Every group is a setting with two replies; with a leak each row has a context of its own that tells its label.
    """
    rng = np.random.default_rng(seed)
    split = np.repeat([name for name, count in GROUPS.items() for _ in range(count)], 2)
    group = np.repeat([f"g{i}" for i in range(sum(GROUPS.values()))], 2)
    label = np.tile([0, 1], sum(GROUPS.values()))
    sign = 2 * label[:, None] - 1
    shared = np.repeat(rng.standard_normal((sum(GROUPS.values()), WIDTH)), 2, axis=0)
    if leak:
        shared = rng.standard_normal((len(label), WIDTH))
    before = shared + leak * sign * np.eye(WIDTH)[0]
    after = before + 0.5 * rng.standard_normal(before.shape) + reply * sign * np.eye(WIDTH)[1]
    rows = Rows(
        label,
        np.flatnonzero(split == "probe-train"),
        np.flatnonzero(split == "select"),
        np.full(len(label), "neutral"),
        group,
    )
    fits = []
    for arm, states in (("base+probe", after), (WITHHELD, before)):
        selection = select_probe(
            "logistic", lambda _, states=states: states.astype(np.float32), [3], rows, Search([0.01, 1.0])
        )
        fits.append(ArmFit(arm, "logistic", 0, selection, lambda _, states=states: states, rows))
    frame = pd.DataFrame(
        {
            "dataset": "d", "split": split, "prompt_id": [f"p{i}" for i in range(len(label))], "example_id": "e", "group": group,
            "condition": "neutral", "template": "t", "format": "chat", "system_prompt": pd.Series([None] * len(label), dtype="string"),
            "demo_set": "none", "shots": np.int16(0), "form": "reply", "known": False,
            "recall_known": pd.array([None] * len(label), dtype="boolean"), "data_seed": np.int32(0), "read": "reply", "pool": "mean",
            "on_policy": pd.array([None] * len(label), dtype="boolean"),
            "outcome": None,
        }
    )  # fmt: skip
    labels = {0: Labels({"deception": label.astype(float)}, np.zeros(len(label), bool))}
    scored = predictions(frame, labels, probe_detectors(fits, axis="deception"), ["deception"])
    results, verdicts = evaluate(scored, HYPOTHESES, "logistic", 1000, 0.02, 8)
    aurocs = {r["arm"]: r["estimate"] for r in results if r["metric"] == "auroc" and r["condition"] == "mean"}
    return verdicts[0]["verdict"], aurocs


def test_a_leak_and_a_signal():
    verdict, aurocs = simulated(0, leak=1.2, reply=0.0)
    assert verdict != "supported" and aurocs["base+probe"] > 0.8 and aurocs[WITHHELD] > 0.8
    verdict, aurocs = simulated(0, leak=0.0, reply=1.0)
    assert verdict == "supported" and aurocs["base+probe"] > 0.8 and abs(aurocs[WITHHELD] - 0.5) < 1e-9


@pytest.mark.slow
def test_leaks_are_caught_and_signals_found():
    """200 runs each: a context that leaks is called so in at least 95 % of them; where the reply tells, it is found."""
    caught = [simulated(seed, leak=1.2, reply=0.0)[0] != "supported" for seed in range(200)]
    assert np.mean(caught) >= 0.95
    nothing = [simulated(seed, leak=0.0, reply=0.0)[0] == "supported" for seed in range(200)]
    assert np.mean(nothing) <= 0.05
    told = [simulated(seed, leak=0.0, reply=1.0)[0] == "supported" for seed in range(50)]
    assert np.mean(told) >= 0.9
