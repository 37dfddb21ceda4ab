"""The arms of the comparison: the same rows, layers and searches for each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.evaluate.scores import Detector
from adapterprobe.hidden import HiddenStates
from adapterprobe.models.encode import Encoded
from adapterprobe.models.layers import parse_layers
from adapterprobe.probes.select import Selection, select_probe
from adapterprobe.progress import bar


@dataclass(frozen=True)
class ArmFit:
    """One probe arm: what was selected, and where its features come from."""

    arm: str
    probe: str
    seed: int
    selection: Selection
    features: Callable[[int], np.ndarray]
    fit_rows: np.ndarray


ASKED_FALSE: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda told_to_lie: told_to_lie,
    "truth": np.zeros_like,
    "lie": np.ones_like,
    "instructed": lambda told_to_lie: told_to_lie,
    "opposite": np.logical_not,
}
"""Whether a model is asked for the false answer, by its adapter's objective (None: no adapter) and whether the prompt tells it
to lie. The opposite of what the base model says is false where the base model is asked for the truth."""


def p_positive(logprobs: np.ndarray) -> np.ndarray:
    """Probability of the positive choice among both: rows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(np.clip(logprobs[:, 1] - logprobs[:, 0], -700, 700).astype(np.float64)))


def own_detector(arm: str, seed: int, encoded: Encoded, states: HiddenStates, objective: str | None) -> Detector:
    """A model's own answer as truth score: p_positive, turned where the false answer is asked for (`asked_false`)."""
    says = p_positive(states.logprobs)
    told = np.array([p.condition == "lie" for p in encoded.prompts])
    asked_false = ASKED_FALSE[objective](told)
    return Detector(arm, None, None, seed, objective, np.where(asked_false, 1 - says, says), says)


def fit_arms(config: RunConfig, encoded: Encoded, base: HiddenStates, adapted: dict[int, HiddenStates]) -> list[ArmFit]:
    """Every probe arm of every seed. Arms that see no adapter are fitted once and repeated per seed."""
    layers = parse_layers(config.select.layers, 0, base.layers[-1])
    truth = np.array([int(p.example.truth) for p in encoded.prompts])
    conditions = np.array([p.condition for p in encoded.prompts])
    groups = np.array([p.example.group for p in encoded.prompts])
    rows = {split: np.array(encoded.where(split)) for split in ("adapter-train", "probe-train", "select")}
    matched = np.concatenate([rows["adapter-train"], rows["probe-train"]])
    base_layer = functools.cache(base.layer)
    plans: list[tuple[str, int | None, Callable[[int], np.ndarray], np.ndarray]] = [
        ("base+probe", None, base_layer, rows["probe-train"]),
        ("base+probe@matched", None, base_layer, matched),
    ]
    for seed, states in adapted.items():
        on = functools.cache(states.layer)
        plans += [
            ("adapter+probe", seed, on, rows["probe-train"]),
            ("both+probe", seed, _joined(base_layer, on), rows["probe-train"]),
            ("diff+probe", seed, _difference(base_layer, on), rows["probe-train"]),
        ]
    fits = []
    with bar(len(plans) * len(config.probes) * len(layers), "fitting probes", unit="layer") as progress:
        for arm, seed, features, fit_rows in plans:
            for name in config.probes:
                selection = select_probe(
                    name,
                    features,
                    layers,
                    truth,
                    fit_rows,
                    rows["select"],
                    conditions,
                    config.select.strengths,
                    progress.update,
                    groups,
                    config.select.folds,
                )
                for repeat in adapted if seed is None else [seed]:
                    fits.append(ArmFit(arm, name, repeat, selection, features, fit_rows))
    return fits


def _joined(base: Callable, on: Callable) -> Callable[[int], np.ndarray]:
    return lambda layer: np.concatenate([base(layer), on(layer)], axis=1)


def _difference(base: Callable, on: Callable) -> Callable[[int], np.ndarray]:
    return lambda layer: on(layer) - base(layer)


def probe_detectors(fits: list[ArmFit], all_layers: bool = False) -> list[Detector]:
    """Detectors at each arm's selected layer, or at all layers."""
    return [
        Detector(fit.arm, fit.probe, layer_fit.layer, fit.seed, "truth", layer_fit.scores)
        for fit in fits
        for layer_fit in (fit.selection.fits if all_layers else [fit.selection.best])
    ]
