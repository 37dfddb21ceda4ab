"""States of tokens for the probes of a run that read them."""

from __future__ import annotations

from adapterprobe.adapt import adapter_merged
from adapterprobe.adapt.files import loaded
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.engine import Engine
from adapterprobe.hidden import record_tokens
from adapterprobe.models import LanguageModel
from adapterprobe.models.encode import Encoded
from adapterprobe.pipeline.adapters import TrainedAdapter
from adapterprobe.pipeline.views import Recorded, sight_of


def token_layers(config: RunConfig, n_layers: int, probe: str | None = None) -> list[int]:
    """Layers at which probes of a run (or the one of that name) read tokens; none if no probe does."""
    specs = [spec for spec in config.probe_specs if probe in (None, spec.label)]
    sights = [sight_of(spec, config, n_layers) for spec in specs]
    return sorted({layer for sight in sights if sight.kind == "tokens" for layer in sight.layers})


def token_states(
    config: RunConfig,
    lm: LanguageModel,
    engine: Engine,
    encoded: Encoded,
    adapters: dict[int, TrainedAdapter],
    layers: list[int],
) -> Recorded:
    """States of tokens at some layers, adapter off, and on for each seed."""
    count = config.select.tokens
    off = record_tokens(engine, encoded, lm.fingerprint, layers, count, "adapter off")
    on = {}
    for seed, adapter in adapters.items():
        with loaded(lm, adapter.folder), adapter_merged(lm.model):
            weights = digest(lm.fingerprint, adapter.key)
            on[seed] = record_tokens(engine, encoded, weights, layers, count, f"adapter on, seed {seed}")
    return Recorded(off, on)
