"""The controls of a run, on the very rows and features of its arms."""

from __future__ import annotations

import functools

import numpy as np
from sklearn.base import clone

from adapterprobe.config import RunConfig
from adapterprobe.evaluate.controls import (
    chance_records,
    control_frame,
    prompt_only,
    random_directions,
    shuffled_labels,
    split_auroc,
)
from adapterprobe.models.encode import Encoded
from adapterprobe.pipeline.arms import ArmFit
from adapterprobe.progress import bar


def run_controls(config: RunConfig, encoded: Encoded, fits: list[ArmFit]) -> list[dict]:
    """Control records: what sees only the prompt, then chance for each arm of the lowest seed."""
    frame = control_frame(encoded.prompts)
    records = prompt_only(frame, np.array(encoded.where("probe-train")))
    mine = [f for f in fits if f.probe == config.evaluate.probe and f.seed == min(config.seeds)]
    sign_rows = np.array(encoded.where("select"))
    draws, seed = config.evaluate.draws, config.data.data_seed
    splits = [split for split in ("test", "ood") if (frame["split"] == split).any()]
    with bar(len(mine), "controls", unit="arm") as progress:
        for fit in mine:
            best = fit.selection.best
            X = fit.features(best.layer)
            detector = {split: float(split_auroc(frame, best.scores[:, None], split)[0]) for split in splits}
            again = functools.partial(clone, best.probe)
            found = {
                "shuffled labels": shuffled_labels(frame, X, fit.rows.fit, again, draws, seed),
                "random directions": random_directions(
                    frame, X.reshape(len(X), -1), fit.rows.fit, sign_rows, draws, seed
                ),
            }
            for name, values in found.items():
                records += chance_records(name, fit.arm, fit.probe, values, detector)
            progress.update()
    return records
