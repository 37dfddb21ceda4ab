"""Adapters that must not work: noise of the trained one's norm, and one trained on shuffled labels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import base_model_record, save_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.adapters.cached_training import TrainedAdapter, record_adapted, trained_adapter
from adapterprobe.adapters.random_adapter import randomised
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.cache import digest, entry
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import ActivationPair
from adapterprobe.detectors.fit import head_detectors, own_detector, probe_detectors, refitted
from adapterprobe.detectors.token_features import token_layers, token_states
from adapterprobe.errors import AdapterProbeError
from adapterprobe.evaluate.controls import control_comparisons
from adapterprobe.evaluate.schema import HEAD
from adapterprobe.evaluate.scores import predictions
from adapterprobe.models import LanguageModel
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded

RANDOM, SHUFFLED = "random adapter", "adapter of shuffled labels"
UNLABELLED = ("opposite",)
"""Objectives that labels play no part in."""


def shuffled_truth(encoded: Encoded, seed: int) -> Encoded:
    """The same prompts, each with the truth of another one of its data set and condition: there is nothing to be learned."""
    rng = np.random.default_rng([seed, 5])
    prompts = list(encoded.prompts)
    cells: dict[tuple, list[int]] = {}
    for row, prompt in enumerate(prompts):
        cells.setdefault((prompt.example.dataset, prompt.split, prompt.condition), []).append(row)
    truth = [prompt.example.truth for prompt in prompts]
    for rows in cells.values():
        for row, other in zip(rows, rng.permutation(rows), strict=True):
            example = replace(prompts[row].example, truth=truth[other])
            prompts[row] = replace(prompts[row], example=example)
    return replace(encoded, prompts=tuple(prompts))


def random_adapter(lm: LanguageModel, config: RunConfig, trained: TrainedAdapter) -> TrainedAdapter:
    """An adapter whose change is noise of the trained one's norm, tensor by tensor."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            initial: Path | None = Path(scratch)
            model = base_model_record(lm)
            try:
                wrapped = attach(lm.model, lm.structure, config.adapter, trained.seed, lm.original)
                try:
                    save_adapter(wrapped, model, initial)
                finally:
                    detach(wrapped)
            except AdapterProbeError:
                # Kinds that start from weights which are no longer held: all of each tensor is replaced.
                initial = None
            randomised(trained.folder, initial, config.data.data_seed, folder / "adapter")

    key = digest(trained.key, config.data.data_seed, "random", 1)
    folder = entry("adapters", key, make, notice=say)
    return replace(trained, folder=folder / "adapter", key=key)


def adapter_controls(run: FittedRun) -> Findings:
    """Records of both controls, made of the lowest seed's adapter, for the adapter's own answer and for the main probe on its
    states; and their scores as rows of `predictions.parquet`."""
    config, lm, engine, encoded = run.config, run.lm, run.engine, run.encoded
    if not config.evaluate.adapter_controls:
        return {}
    seed = run.lowest_seed
    trained = run.adapters[seed]
    layers = token_layers(config, lm.structure.n_layers, run.main_probe)
    makers: dict[str, Callable[[], TrainedAdapter]] = {RANDOM: lambda: random_adapter(lm, config, trained)}
    if config.adapter.objective not in UNLABELLED:
        train, select = (shuffled_truth(part, config.data.data_seed) for part in run.training_prompts)
        quiet = config.adapter.model_copy(update={"track": []})
        makers[SHUFFLED] = lambda: trained_adapter(lm, engine, train, select, quiet, seed, run.trunk)
    detectors = []
    for name, make in makers.items():
        adapter = make()
        states = record_adapted(lm, engine, adapter, encoded, run.base, run.trunk)
        own = own_detector(name, seed, encoded, states, config.adapter.objective)
        seen = {seed: states}
        tokens = token_states(config, lm, engine, encoded, {seed: adapter}, layers) if layers else None
        fit = refitted(config, encoded, ActivationPair.of(run.base, seen), tokens, "adapter+probe", seed)
        (probed,) = probe_detectors([replace(fit, arm=f"{name}+probe")], axis=config.axes[0])
        detectors += [probed] if config.adapter.objective == "detect" else [own, probed]
        if name == SHUFFLED:
            detectors += head_detectors(f"{name}+head", {seed: adapter.folder}, seen, config.axes[0])
    scores = predictions(run.prompt_frame, run.labels, detectors, config.axes[:1])
    main = run.predictions[run.predictions["axis"] == config.axes[0]]
    main = main[main["probe"].isna() | (main["probe"] == run.main_probe)]
    together = pd.concat([main, scores], ignore_index=True)
    made = {detector.arm for detector in detectors}
    pairs = [(arm, f"{name}{suffix}") for name in makers for arm, suffix in ARMS if f"{name}{suffix}" in made]
    records = control_comparisons(together, pairs, run.main_probe, config.evaluate.resamples)
    return {"controls.json": records, "controls.parquet": scores}


ARMS = (("adapter", ""), ("adapter+probe", "+probe"), (HEAD, "+head"))
"""Arms that are held against a control, and what its name ends with."""
