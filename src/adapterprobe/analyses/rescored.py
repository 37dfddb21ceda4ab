"""Every arm, as it was fitted, on prompts that were not those of its run."""

from __future__ import annotations

from collections.abc import Mapping

from adapterprobe.activations import HiddenStates, TokenStates, record, record_tokens
from adapterprobe.adapters.detect_head import head_layer
from adapterprobe.analyses.fitted_run import FittedRun
from adapterprobe.cache import digest
from adapterprobe.detectors.centred import probabilities
from adapterprobe.detectors.features import ActivationPair
from adapterprobe.detectors.fit import ArmFit, head_detectors, own_detector
from adapterprobe.evaluate.schema import BASELINES, HEAD
from adapterprobe.evaluate.scores import Detector
from adapterprobe.prompts.encoded import Encoded

Recorded = tuple[HiddenStates, HiddenStates | TokenStates]
"""What own answers and heads see, and what probes see."""


def rescored(run: FittedRun, ways: Mapping[str, Encoded]) -> dict[str, list[Detector]]:
    """By name, the detectors of the lowest seed (own answers, the main probe of every arm, the head) with scores for those prompts."""
    seed, lm = run.lowest_seed, run.lm
    fits = [fit for fit in run.fits_of(probe=run.main_probe, seed=seed) if fit.arm not in BASELINES]
    weights = digest(lm.fingerprint, run.adapters[seed].key)
    off = {name: _recorded(run, name, encoded, lm.fingerprint, fits, "off") for name, encoded in ways.items()}
    with run.adapter_on(seed):
        on = {name: _recorded(run, name, encoded, weights, fits, "on") for name, encoded in ways.items()}
    return {name: _detectors(run, encoded, off[name], on[name], fits) for name, encoded in ways.items()}


def _recorded(run: FittedRun, name: str, encoded: Encoded, weights: str, fits: list[ArmFit], how: str) -> Recorded:
    """States at the layers that the fits look at, and tokens there if they look at tokens."""
    probe_input = run.feature_specs[run.main_probe]
    best = {f.selection.best.layer for f in fits}
    chosen = sorted(best.union(*(probe_input.seen(layer) for layer in best)))
    what = f"{name}, adapter {how}"
    head = head_layer(run.config.adapter, run.lm.structure.n_layers)
    single = {*(chosen if probe_input.kind != "tokens" else []), *([] if head is None else [head])}
    states = record(run.engine, encoded, weights, sorted(single), what)
    if probe_input.kind != "tokens":
        return states, states
    return states, record_tokens(run.engine, encoded, weights, chosen, run.config.select.tokens, what)


def _detectors(run: FittedRun, encoded: Encoded, off: Recorded, on: Recorded, fits: list[ArmFit]) -> list[Detector]:
    config, seed, probe_input = run.config, run.lowest_seed, run.feature_specs[run.main_probe]
    found = [
        own_detector("base", seed, encoded, off[0], None),
        own_detector("adapter", seed, encoded, on[0], config.adapter.objective),
    ]
    views = ActivationPair.of(off[1], {seed: on[1]}).views()
    for fit in fits:
        best = fit.selection.best
        if (fit.arm, seed) not in views and (fit.arm, None) not in views:
            # A probe over tokens: in front of a reply only single states were recorded.
            continue
        view = views.get((fit.arm, seed)) or views[fit.arm, None]
        seen = probe_input.of(view)(best.layer)
        scores = probabilities(run.config.probe_by_label[fit.probe], best.probe, seen, encoded.prompts)
        found.append(Detector(fit.arm, fit.probe, best.layer, seed, config.axes[0], scores))
    return [*found, *head_detectors(HEAD, {seed: run.adapters[seed].folder}, {seed: on[0]}, config.axes[0])]
