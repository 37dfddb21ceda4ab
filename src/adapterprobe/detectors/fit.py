"""The arms of the comparison: the same rows, layers and searches for each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapterprobe.activations import HiddenStates
from adapterprobe.activations.in_memory import MemoryStates
from adapterprobe.adapters.cached_training import TrainedAdapter
from adapterprobe.adapters.detect_head import load_head
from adapterprobe.config import ProbeConfig, RunConfig
from adapterprobe.detectors.features import ActivationPair, FeatureSpec, LayerFeatures, feature_spec
from adapterprobe.detectors.search_cache import SearchJob, fitted
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.schema import BASELINES, FOLLOWUPS, HEAD
from adapterprobe.evaluate.scores import Detector, Labels, predictions
from adapterprobe.probes import lookup
from adapterprobe.probes.rows import Rows, fold_masks
from adapterprobe.probes.select import Selection
from adapterprobe.progress import bar, say
from adapterprobe.prompts.contrast_pairs import pair_numbers, polarities
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.prompt_sets import set_names, wordings
from adapterprobe.prompts.token_labels import last_token_labels


@dataclass(frozen=True)
class ArmFit:
    """One probe arm: what was selected, and where its features come from."""

    arm: str
    probe: str
    seed: int
    selection: Selection
    features: Callable[[int], np.ndarray]
    rows: Rows
    seconds: float = 0.0
    """What the search took when it was made."""


@dataclass(frozen=True)
class BaselineArm:
    """An arm that sees no state of the model that is read: something else that gives features of the same prompts."""

    arm: str
    states: Any
    """Whatever gives a `layer` and has a `key` (see `ActivationPair`)."""
    probe_inputs: Mapping[str, FeatureSpec]
    """How each probe looks, by its name."""
    refused: Mapping[str, str]
    """Probes that cannot be fitted here, and why."""
    tokens: Any = None
    """Where a probe reads tokens."""

    def view(self, probe_input: FeatureSpec) -> LayerFeatures:
        """What a probe sees."""
        seen = self.tokens if probe_input.kind == "tokens" else self.states
        return functools.lru_cache(maxsize=4)(seen.layer)


ASKED_FALSE: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda told_to_lie: told_to_lie,
    "truth": np.zeros_like,
    "lie": np.ones_like,
    "instructed": lambda told_to_lie: told_to_lie,
    "detect": lambda told_to_lie: told_to_lie,
    "opposite": np.logical_not,
}
"""Whether a model is asked for the false answer, by its adapter's objective (None: no adapter) and whether the prompt tells it
to lie. The opposite of what the base model says is false where the base model is asked for the truth."""


def p_positive(logprobs: np.ndarray) -> np.ndarray:
    """Probability of the positive choice among both: rows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(np.clip(logprobs[:, 1] - logprobs[:, 0], -700, 700).astype(np.float64)))


def own_detector(
    arm: str, seed: int, encoded: Encoded, states: HiddenStates | MemoryStates, objective: str | None
) -> Detector:
    """A model's own answer as truth score: p_positive, turned where the false answer is asked for (`asked_false`)."""
    says = p_positive(states.logprobs)
    told = encoded.column(lambda p: p.condition == "lie")
    asked_false = ASKED_FALSE[objective](told)
    return Detector(arm, None, None, seed, objective, np.where(asked_false, 1 - says, says), says)


def all_scores(
    config: RunConfig,
    encoded: Encoded,
    base: HiddenStates,
    adapters: Mapping[int, TrainedAdapter],
    adapted: Mapping[int, HiddenStates],
    fits: list[ArmFit],
    prompts: pd.DataFrame,
    labels: dict[int, Labels],
    baselines: Sequence[Detector],
) -> pd.DataFrame:
    """Rows of `predictions.parquet`: every arm of every seed, on all axes.

    Args:
        prompts, labels: see `judged_prompts`. baselines: arms that are scored already.
    """
    own = [own_detector("base", seed, encoded, base, None) for seed in config.seeds]
    objective = config.adapter.objective
    own += [own_detector("adapter", seed, encoded, states, objective) for seed, states in adapted.items()]
    axis = config.axes[0]
    own += head_detectors(HEAD, {seed: a.folder for seed, a in adapters.items()}, adapted, axis)
    return predictions(prompts, labels, [*own, *baselines, *probe_detectors(fits, axis=axis)], config.axes)


def head_detectors(
    arm: str, folders: Mapping[int, Path], adapted: Mapping[int, HiddenStates | MemoryStates], axis: str
) -> list[Detector]:
    """The heads that were trained with adapters, by training seed, on states with each adapter on; none where none was.

    Args:
        folders: of the adapters; `axis`: what their labels were.
    """
    found = []
    for seed, folder in folders.items():
        head = load_head(folder)
        if head is not None:
            scores = head.probability(adapted[seed].layer(head.layer))
            found.append(Detector(arm, None, head.layer, seed, axis, scores))
    return found


def fit_arms(
    config: RunConfig,
    encoded: Encoded,
    base: HiddenStates,
    adapted: dict[int, HiddenStates],
    tokens: ActivationPair | None,
    baselines: Sequence[BaselineArm] = (),
) -> tuple[list[ArmFit], list[dict]]:
    """Every probe arm of every seed. Arms that see no adapter are fitted once and repeated per seed.

    Args:
        tokens: states of tokens, where a probe reads them.
        baselines: arms that see no state of the model, fitted and searched for in the same way.

    Returns:
        The fits, and what was left out: a probe that cannot be fitted in an arm, with the reason.

    Raises:
        DataError: the probe that hypotheses are about cannot be fitted.
    """
    everything = all_rows(config, encoded)
    matched = np.concatenate([np.array(encoded.where("adapter-train")), everything.fit])
    states = ActivationPair.of(base, adapted)
    feature_specs = {spec.label: feature_spec(spec, config, base.layers[-1]) for spec in config.probe_specs}
    views = {"tokens": tokens.views() | states.withheld_tokens() if tokens else {}, "states": states.views()}
    fits, left_out = [], []
    jobs = [
        (
            arm,
            seed,
            feature_specs,
            lambda spec, arm=arm, seed=seed: views["tokens" if spec.kind == "tokens" else "states"][arm, seed],
            states.key(arm, seed),
        )
        for arm, seed in views["states"]
    ]
    jobs += [(b.arm, None, b.probe_inputs, b.view, [b.arm, b.states.key]) for b in baselines]
    total = sum(len(probe_input.layers) for _, _, inputs, _, _ in jobs for probe_input in inputs.values())
    left_out += [
        {"arm": b.arm, "probe": probe, "seed": None, "reason": reason}
        for b in baselines
        for probe, reason in b.refused.items()
    ]
    with bar(total, "fitting probes", unit="layer") as progress:
        for arm, seed, inputs, view, key in jobs:
            rows = replace(everything, fit=matched) if arm == "base+probe@matched" else everything
            for spec in config.probe_specs:
                if spec.label not in inputs:
                    continue
                probe_input = inputs[spec.label]
                features = probe_input.of(view(probe_input))
                progress.set_postfix_str(f"{arm}, {spec.label}", refresh=False)
                try:
                    job = SearchJob(spec, probe_input, rows_for(spec, rows), config.select)
                    selection, seconds = fitted(job, features, key, progress.update)
                    _check_scores(selection)
                except DataError as error:
                    if spec.label == config.evaluate.probe and arm not in BASELINES:
                        raise
                    say(f"probe '{spec.label}' is left out of {arm}: {error}")
                    left_out.append({"arm": arm, "probe": spec.label, "seed": seed, "reason": str(error)})
                    continue
                for repeat in adapted if seed is None else [seed]:
                    fits.append(ArmFit(arm, spec.label, repeat, selection, features, job.rows, seconds))
    return fits, left_out


def rows_for(spec: ProbeConfig, rows: Rows) -> Rows:
    """Rows as a probe takes them: with sets where it centres by them, or wants them itself."""
    wanted = spec.centre is not None or "sets" in lookup(spec.probe).wants
    return rows if wanted else replace(rows, sets=None)


def check_search(config: RunConfig, encoded: Encoded) -> None:
    """What can be known of the search before anything long begins.

    Raises:
        DataError: too few groups, or wordings, for its folds.
        ConfigError: a probe that cannot be centred.
    """
    for spec in config.probe_specs:
        if spec.centre and "sets" in lookup(spec.probe).wants:
            raise ConfigError(f"probe '{spec.label}' centres by sets in its own way; leave probes' centre out")
    if config.select.folds:
        fold_masks(all_rows(config, encoded), config.select.folds, config.select.hold_out)


def _check_scores(selection: Selection) -> None:
    """Raises `DataError` where a fitted probe gives scores that are no numbers: it may have done so outside `select` alone."""
    for fit in selection.fits:
        bad = int((~np.isfinite(fit.scores)).sum())
        if bad:
            raise DataError(f"{bad} of {len(fit.scores)} scores at layer {fit.layer} are not finite")


def refitted(
    config: RunConfig,
    encoded: Encoded,
    states: ActivationPair,
    tokens: ActivationPair | None,
    arm: str,
    seed: int | None,
) -> ArmFit:
    """The main probe of one arm, searched for in the same way on other states of the same prompts.

    Args:
        seed: of the adapter that is seen; None where the arm sees none.
    """
    spec = config.probe_by_label[config.evaluate.probe]
    probe_input = feature_spec(spec, config, states.off.layers[-1])
    seen = tokens if probe_input.kind == "tokens" and tokens else states
    features = probe_input.of(seen.views()[arm, seed])
    rows = rows_for(spec, all_rows(config, encoded))
    selection, seconds = fitted(
        SearchJob(spec, probe_input, rows, config.select), features, states.key(arm, seed), _nothing
    )
    return ArmFit(arm, spec.label, min(config.seeds) if seed is None else seed, selection, features, rows, seconds)


def _nothing() -> None:
    """Progress is not told."""


def all_rows(config: RunConfig, encoded: Encoded) -> Rows:
    """What probes are fitted on and selected by."""
    prompts = encoded.prompts
    weights = encoded.column(lambda p: p.example.weight, float)
    return Rows(
        labels=np.array([int(p.example.truth) for p in prompts]),
        fit=np.array(encoded.where("probe-train")),
        select=np.array(encoded.where("select")),
        conditions=np.array([p.condition for p in prompts]),
        groups=np.array([p.example.group for p in prompts]),
        pairs=pair_numbers(prompts),
        polarity=polarities(prompts),
        weights=weights if (weights != 1).any() else None,
        token_labels=last_token_labels(encoded, config.select.tokens),
        wordings=wordings(prompts),
        sets=set_names(prompts),
    )


def probe_detectors(fits: list[ArmFit], all_layers: bool = False, axis: str = "truth") -> list[Detector]:
    """Detectors at each arm's selected layer, or at all layers (of arms that have some).

    Args:
        axis: what they were fitted for.
    """
    return [
        Detector(
            fit.arm, fit.probe, None if fit.arm == FOLLOWUPS else layer_fit.layer, fit.seed, axis, layer_fit.scores
        )
        for fit in fits
        for layer_fit in (fit.selection.fits if all_layers else [fit.selection.best])
        if not (all_layers and fit.arm == FOLLOWUPS)
    ]
