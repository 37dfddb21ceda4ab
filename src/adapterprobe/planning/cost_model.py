"""How long what comes after training and recording will take: controls, probes, statistics."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from adapterprobe.analyses.adapter_controls import UNLABELLED
from adapterprobe.analyses.learning_curves import DRAWS, INNER
from adapterprobe.analyses.steering import DOSES, MOST_PROMPTS, RANDOM
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import feature_spec
from adapterprobe.detectors.fit import all_rows, rows_for
from adapterprobe.detectors.search_cache import SearchJob
from adapterprobe.models import LanguageModel
from adapterprobe.probes.select import settings_of
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.rewordings import MOST_GROUPS

GUARANTEES = 0.1
"""Seconds that a detector's calibration and conformal sets take."""
LESS_SHARED = 2.0
"""How much longer a prompt that is asked otherwise takes than one of the run, as a rule of thumb."""


def challenge_seconds(
    config: RunConfig, encoded: Encoded, tokens: int, trained: float, per_token: float, below: float
) -> float:
    """Seconds of adapters that must not work (one more training, two more passes) and of asking otherwise (off and on)."""
    settings, found = config.evaluate, 0.0
    if settings.adapter_controls:
        labelled = config.adapter.objective not in UNLABELLED
        found += labelled * trained + (1 + labelled) * tokens * per_token * (1 - below)
    test = [p.example.group for p in encoded.prompts if p.split == "test"]
    asked = len(test) * min(1.0, MOST_GROUPS / max(1, len(set(test)))) / max(1, len(encoded))
    # Prompts of one way share their demonstrations less often than those of the whole run.
    return found + LESS_SHARED * len(settings.shifts) * 2 * asked * tokens * per_token


def statistics_seconds(
    config: RunConfig, lm: LanguageModel, encoded: Encoded, tokens: int, seeds: int, per_token: float
) -> float:
    """Seconds of what comes after the passes: probes are tried out on noise of the right shape, and the rest goes with
    them."""
    rng = np.random.default_rng(0)
    fit = np.array(encoded.where("adapter-train") + encoded.where("probe-train"))
    width = lm.structure.width
    noise = rng.standard_normal((len(encoded), width)).astype(np.float32)
    rows = replace(all_rows(config, encoded), fit=fit)
    fits = 0.0
    for spec in config.probe_specs:
        probe_input = feature_spec(spec, config, lm.structure.n_layers)
        depth = {"layer": 0, "mean": 0, "tokens": config.select.tokens}.get(probe_input.kind, len(probe_input.several))
        features = np.repeat(noise[:, None], depth, axis=1) if depth else noise
        if depth and not probe_input.deep and probe_input.kind != "tokens":
            features = features.reshape(len(noise), -1)
        some = replace(probe_input, layers=probe_input.layers[:2], kind="layer", several=())
        begun = time.perf_counter()
        SearchJob(spec, some, rows_for(spec, rows), config.select).search(lambda layer, found=features: found)
        layer = (time.perf_counter() - begun) / len(some.layers)
        # Two arms without an adapter, three with one for each seed, one of them of double width.
        fits += layer * len(probe_input.layers) * (2 + 4 * seeds)
        again = layer / len(settings_of(spec.probe, config.select.strengths, spec.params))
        fits += again * 6 * DRAWS * sum(config.select.curve)
        if spec.label == config.evaluate.probe:
            fits += layer * len(probe_input.layers) * 6 * config.select.nested * INNER
        if probe_input.kind == "tokens":
            passes = sum(probe_input.layers) / lm.structure.n_layers * (1 + seeds)
            fits += passes * tokens * per_token
    judged = sum(p.split in ("calibrate", "test", "ood") for p in encoded.prompts)
    reported = judged * (2 + 5 * len(config.probe_specs)) * seeds * 4
    detectors = (2 + 5 * len(config.probe_specs)) * seeds
    steered = 0.0
    if config.evaluate.directions:
        some = min(MOST_PROMPTS, len(encoded)) / len(encoded) * tokens
        steered = 2 * len(DOSES) * (1 + RANDOM) * some * per_token
    return fits + 6.0 + GUARANTEES * detectors + steered + 4e-9 * reported * config.evaluate.resamples
