"""A causal check: does the model's answer move when the probe's direction is added to its states?"""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from adapterprobe.analyses.directions import COMPARED, unit
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.engine.outcomes import answer_logprobs
from adapterprobe.progress import bar
from adapterprobe.prompts.encoded import Encoded

DOSES = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)
"""In distances between the means of true and false prompts along the direction."""
MOST_PROMPTS = 48
RANDOM = 2
"""Random directions beside it."""


def steering(run: FittedRun) -> Findings:
    """What the main probe's direction does to the answers, where the run is to have it: see `steering_records`."""
    # The direction is added at the answer: that says something where the answer is what was read.
    wanted = run.config.evaluate.directions and run.config.read.what == "answer"
    return {"probes.json": {"steering": steering_records(run)}} if wanted else {}


def steering_records(run: FittedRun) -> list[dict]:
    """What the main probe's direction does at its layer, at the answer position of prompts of test, adapter off and on.

    Returns:
        A record per arm, direction (`probe`, or `random`), condition and dose: the mean change of the log-odds of the positive
        choice with its standard error over groups, and the share of prompts whose answer it turns. Arms whose probe has no
        direction have none.
    """
    records = []
    for arm in COMPARED:
        fit = run.main_fit(arm)
        direction = getattr(fit.selection.best.probe, "state_direction", None)
        if direction is None or direction.shape != (run.lm.structure.width,):
            continue
        with contextlib.nullcontext() if arm == "base+probe" else run.adapter_on(run.lowest_seed):
            records += _doses(run.engine, run.encoded, fit, unit(direction), run.config.data.data_seed)
    return records


def _doses(engine: Engine, encoded: Encoded, fit: ArmFit, direction: np.ndarray, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    test = np.array(encoded.where("test"))
    some = encoded.subset(sorted(rng.permutation(test)[:MOST_PROMPTS].tolist()))
    layer = fit.selection.best.layer
    along = fit.features(layer)[fit.rows.fit] @ direction
    labels = fit.rows.labels[fit.rows.fit]
    distance = float(along[labels == 1].mean() - along[labels == 0].mean())
    others = [unit(rng.standard_normal(len(direction))) for _ in range(RANDOM)]
    batches = engine.plan(some.ids)
    trunk = LowerBlockCache(layer - 1, engine, batches) if layer > 1 else None
    if trunk:
        trunk.collect(engine, "blocks below the direction")
    with engine.starting_from(trunk):
        before = _log_odds(engine, some)
        values: dict[tuple[str, float], np.ndarray] = {}
        turned: dict[tuple[str, float], np.ndarray] = {}
        with bar(len(DOSES) * (1 + RANDOM), f"adding directions, {fit.arm}", unit="dose") as progress:
            for dose in DOSES:
                for name, vectors in (("probe", [direction]), ("random", others)):
                    found = []
                    for vector in vectors:
                        with engine.steered(layer, torch.tensor(dose * distance * vector)):
                            found.append(_log_odds(engine, some))
                        progress.update()
                    values[name, dose] = np.mean([after - before for after in found], axis=0)
                    turned[name, dose] = np.mean([(after > 0) != (before > 0) for after in found], axis=0)
    groups = np.array([p.example.group for p in some.prompts])
    conditions = np.array([p.condition for p in some.prompts])
    records = []
    for (name, dose), change in values.items():
        for condition in np.unique(conditions):
            mine = conditions == condition
            means = [change[mine & (groups == group)].mean() for group in np.unique(groups[mine])]
            records.append(
                {
                    "arm": fit.arm,
                    "layer": layer,
                    "direction": name,
                    "condition": str(condition),
                    "dose": dose,
                    "change": float(change[mine].mean()),
                    "error": float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None,
                    "turned": float(turned[name, dose][mine].mean()),
                    "prompts": int(mine.sum()),
                }
            )
    return records


def _log_odds(engine: Engine, encoded: Encoded) -> np.ndarray:
    """Of the positive choice against the negative one, by prompt."""
    answers = answer_logprobs(engine, encoded).numpy()
    return answers[:, 0] - answers[:, 1]
