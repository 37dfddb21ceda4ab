"""States of tokens for the probes of a run that read them."""

from __future__ import annotations

from adapterprobe.activations import record_tokens
from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.adapters.cached_training import TrainedAdapter
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import ActivationPair, feature_spec
from adapterprobe.engine import Engine
from adapterprobe.models import LanguageModel
from adapterprobe.prompts.encoded import Encoded


def token_layers(config: RunConfig, n_layers: int, probe: str | None = None) -> list[int]:
    """Layers at which probes of a run (or the one of that name) read tokens; none if no probe does."""
    specs = [spec for spec in config.probe_specs if probe in (None, spec.label)]
    feature_specs = [feature_spec(spec, config, n_layers) for spec in specs]
    return sorted(
        {layer for probe_input in feature_specs if probe_input.kind == "tokens" for layer in probe_input.layers}
    )


def token_states(
    config: RunConfig,
    lm: LanguageModel,
    engine: Engine,
    encoded: Encoded,
    adapters: dict[int, TrainedAdapter],
    layers: list[int],
) -> ActivationPair:
    """States of tokens at some layers, adapter off, and on for each seed."""
    count = config.select.tokens
    off = record_tokens(engine, encoded, lm.fingerprint, layers, count, "adapter off")
    on = {}
    for seed, adapter in adapters.items():
        with adapter_loaded(lm, adapter.folder):
            weights = digest(lm.fingerprint, adapter.key)
            on[seed] = record_tokens(engine, encoded, weights, layers, count, f"adapter on, seed {seed}")
    return ActivationPair(off, on)
