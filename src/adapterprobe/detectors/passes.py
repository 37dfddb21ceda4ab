"""Forward passes for detectors: what each needs of a model, adapter off and on, computed once for all that share prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from adapterprobe.activations import record_tokens
from adapterprobe.activations.in_memory import MemoryStates, states_in_memory
from adapterprobe.adapters.adapter_folder import adapter_digest, adapter_loaded
from adapterprobe.adapters.detect_head import SavedHead
from adapterprobe.cache import digest
from adapterprobe.detectors.bundle_record import DetectorRecord
from adapterprobe.detectors.features import ActivationPair, FeatureSpec, LayerFeatures
from adapterprobe.detectors.fit import own_detector
from adapterprobe.engine import Engine
from adapterprobe.errors import CacheError
from adapterprobe.models import LanguageModel
from adapterprobe.probes import Probe
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.types import Prompt

SEED = 0


def encoded_for(record: DetectorRecord, lm: LanguageModel, prompts: Sequence[Prompt]) -> Encoded:
    """Prompts as a model takes them, and what a detector reads of them.

    Raises:
        DataError: too long, or choices that begin alike.
    """
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    return with_reads(encoded, record.read, lm.tokenizer, withheld=False)


def probed(
    probe: Probe,
    probe_input: FeatureSpec,
    view: LayerFeatures,
    layer: int,
    what: str,
    remedy: str,
    says: Callable[[Probe, np.ndarray], np.ndarray] = lambda probe, X: probe.predict_proba(X)[:, 1],
) -> np.ndarray:
    """Probabilities of label 1 that a saved probe gives what it sees at a layer.

    Args:
        says: how a probe gives them.

    Raises:
        CacheError: it cannot score (`what` it is, and the `remedy`).
    """
    try:
        return says(probe, probe_input.of(view)(layer))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CacheError(
            f"{what} cannot score ({type(error).__name__}: {str(error)[:160]}); it is damaged: {remedy}"
        ) from error


@dataclass(frozen=True)
class Needs:
    """What a detector sees of a model."""

    record: DetectorRecord
    probe: Probe | None
    head: SavedHead | None
    adapter: Path | None

    @property
    def layers(self) -> set[int]:
        """Layers whose states are pooled for it, beside those of tokens."""
        if self.head is not None:
            return {self.head.layer}
        seen = self.record.seen
        return set() if seen is None or seen.kind == "tokens" else {seen.layer, *seen.several}

    @property
    def token_layers(self) -> list[int]:
        seen = self.record.seen
        return [seen.layer] if seen is not None and seen.kind == "tokens" else []

    def scores(self, encoded: Encoded, passes: Passes) -> np.ndarray:
        """Scores in [0, 1] of the prompts that the passes are of.

        Raises:
            CacheError: the saved probe cannot score.
        """
        on = passes.on.get(self.adapter) if self.adapter else None
        seen_states = passes.off if on is None else on
        assert seen_states is not None
        if self.head is not None:
            return self.head.probability(seen_states.layer(self.head.layer))
        if self.probe is None:
            objective = self.record.objective if self.record.sees_adapter else None
            return own_detector(self.record.arm, SEED, encoded, seen_states, objective).truth_score
        assert self.record.seen is not None
        tokens = bool(self.token_layers)
        off_view: Any = passes.tokens.get(None) if tokens else passes.off
        on_view: Any = passes.tokens.get(self.adapter) if tokens else on
        arm = self.record.arm.partition("@")[0]
        # Where the states without adapter are not seen, nobody asks for them.
        pair = ActivationPair(off_view or on_view, {} if self.adapter is None else {SEED: on_view})
        views = pair.views()
        view = views.get((arm, SEED)) or views[arm, None]
        seen = self.record.seen
        what = f"the probe of the detector {self.record.name}"
        return probed(self.probe, seen.spec, view, seen.layer, what, "take the bundle from a copy")


@dataclass
class Passes:
    """States of some prompts: adapter off (None where nobody sees them), and on by its folder."""

    off: MemoryStates | None = None
    on: dict[Path, MemoryStates] = field(default_factory=dict)
    tokens: dict[Path | None, Any] = field(default_factory=dict)


def off_layers(needs: Sequence[Needs], also: Sequence[int] = ()) -> list[int]:
    """Layers that are pooled with the adapter off."""
    return sorted({*also, *(layer for need in needs if need.record.sees_base for layer in need.layers)})


def on_layers(needs: Sequence[Needs], also: Sequence[int] = ()) -> dict[Path, list[int]]:
    """By adapter, the layers that are pooled with it on."""
    return {
        adapter: sorted({*also, *(layer for need in needs if need.adapter == adapter for layer in need.layers)})
        for adapter in dict.fromkeys(need.adapter for need in needs if need.adapter is not None)
    }


def forward(
    lm: LanguageModel,
    engine: Engine,
    encoded: Encoded,
    needs: Sequence[Needs],
    also: Sequence[int] = (),
    also_on: Sequence[int] = (),
) -> Passes:
    """One pass without adapter, and one with each adapter, for all detectors.

    Args:
        also, also_on: further layers, adapter off and on.
    """
    passes = Passes()
    if also or any(need.record.sees_base for need in needs):
        passes.off = states_in_memory(engine, encoded, off_layers(needs, also), "adapter off")
    off_tokens = sorted({layer for need in needs if need.record.sees_base for layer in need.token_layers})
    if off_tokens:
        count = max(need.record.seen.tokens for need in needs if need.record.seen and need.token_layers)
        passes.tokens[None] = record_tokens(engine, encoded, lm.fingerprint, off_tokens, count, "tokens")
    for adapter, layers in on_layers(needs, also_on).items():
        mine = [need for need in needs if need.adapter == adapter]
        on_tokens = sorted({layer for need in mine for layer in need.token_layers})
        with adapter_loaded(lm, adapter):
            passes.on[adapter] = states_in_memory(engine, encoded, layers, "adapter on")
            if on_tokens:
                count = max(need.record.seen.tokens for need in mine if need.record.seen and need.token_layers)
                weights = digest(lm.fingerprint, adapter_digest(adapter))
                passes.tokens[adapter] = record_tokens(engine, encoded, weights, on_tokens, count, "tokens")
    return passes


class StateReader(Protocol):
    """Gives detectors what they see of a model: our own engine, or another's (see `integrations`)."""

    @property
    def lm(self) -> LanguageModel:
        """The model; its weights may be elsewhere (see `has_weights`)."""
        ...

    @property
    def has_weights(self) -> bool:
        """Whether the weights of `lm` are the ones that are read with, so that they can be looked at."""
        ...

    def passes(
        self, encoded: Encoded, needs: Sequence[Needs], also: Sequence[int] = (), also_on: Sequence[int] = ()
    ) -> Passes:
        """See `forward`."""
        ...


_ENGINES: WeakValueDictionary[int, Engine] = WeakValueDictionary()
"""By the model in memory that they run, which they keep there."""


class OwnEngine:
    """Reads by our own engine, one for all detectors of a model. It tries the model out when it is first asked.

    Args:
        engine: of the model, where there is one already.
    """

    has_weights = True

    def __init__(self, lm: LanguageModel, engine: Engine | None = None) -> None:
        self.lm, self._engine = lm, engine

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = _ENGINES.get(id(self.lm.model))
            if self._engine is None:
                self._engine = Engine(self.lm.model, self.lm.structure)
                _ENGINES[id(self.lm.model)] = self._engine
        return self._engine

    def passes(
        self, encoded: Encoded, needs: Sequence[Needs], also: Sequence[int] = (), also_on: Sequence[int] = ()
    ) -> Passes:
        """See `forward`."""
        return forward(self.lm, self.engine, encoded, needs, also, also_on)
