"""What an adapter does to the model beside its objective: which answers change, and what its states have that the base
model's have not."""

from __future__ import annotations

import numpy as np

from adapterprobe.activations import HiddenStates
from adapterprobe.analyses.cka import class_share, linear_cka, relative_change
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import p_positive
from adapterprobe.evaluate.intervals import mean_interval
from adapterprobe.progress import bar
from adapterprobe.prompts.encoded import Encoded

MOST_ROWS = 600
"""Judged prompts that states are compared on."""


def adapter_effects(run: FittedRun) -> Findings:
    """What changes in states and answers: see `adapter_effect_records`."""
    return {"challenge.json": {"integrity": adapter_effect_records(run.encoded, run.base, run.adapted)}}


def adapter_effect_records(
    encoded: Encoded, base: HiddenStates, adapted: dict[int, HiddenStates]
) -> dict[str, list[dict]]:
    """By seed: `layers` (CKA, relative change, share of the change that tells true from false, on prompts of test) and
    `answers` (how often the answer changed, by split and condition, with its interval over groups)."""
    prompts = encoded.prompts
    truth = np.array([int(p.example.truth) for p in prompts])
    cells = np.array([f"{p.example.dataset} {p.condition}" for p in prompts])
    test = np.array(encoded.where("test"))
    some = np.sort(np.random.default_rng(0).permutation(test)[:MOST_ROWS])
    layers, answers = [], []
    with bar(len(adapted) * len(base.layers), "comparing states", unit="layer") as progress:
        for seed, states in adapted.items():
            for layer in base.layers:
                off, on = base.layer(layer)[some], states.layer(layer)[some]
                same = np.array_equal(off, on)
                cka = 1.0 if same else linear_cka(off, on)
                share = class_share(on - off, truth[some], cells[some])
                layers.append(
                    {
                        "seed": seed,
                        "layer": layer,
                        "cka": cka if np.isfinite(cka) else None,
                        "relative_change": relative_change(off, on),
                        "truth_share": share if np.isfinite(share) else None,
                    }
                )
                progress.update()
            answers += _answers(encoded, seed, p_positive(base.logprobs) > 0.5, p_positive(states.logprobs) > 0.5)
    return {"layers": layers, "answers": answers}


def _answers(encoded: Encoded, seed: int, off: np.ndarray, on: np.ndarray) -> list[dict]:
    prompts = encoded.prompts
    truth = np.array([p.example.truth for p in prompts])
    groups = np.array([p.example.group for p in prompts])
    splits, conditions = np.array([p.split for p in prompts]), np.array([p.condition for p in prompts])
    records = []
    for split in ("test", "ood"):
        for condition in np.unique(conditions):
            mine = (splits == split) & (conditions == condition)
            if not mine.any():
                continue
            changed = mean_interval((off != on)[mine].astype(float), groups[mine])
            records.append(
                {
                    "seed": seed,
                    "split": split,
                    "condition": str(condition),
                    "changed": changed.estimate,
                    "low": changed.low,
                    "high": changed.high,
                    "right_off": float((off == truth)[mine].mean()),
                    "right_on": float((on == truth)[mine].mean()),
                    "prompts": int(mine.sum()),
                }
            )
    return records
