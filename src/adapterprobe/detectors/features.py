"""What a probe of an arm sees at a layer: states, several layers of them, or tokens, with the adapter off, on, or both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adapterprobe.config import ProbeConfig, RunConfig
from adapterprobe.errors import ConfigError
from adapterprobe.evaluate.schema import WITHHELD, WITHHELD_ON
from adapterprobe.models.layers import parse_states
from adapterprobe.probes import lookup
from adapterprobe.probes.features import FEATURES, Difference

LayerFeatures = Callable[[int], np.ndarray]
"""Gives the features of a layer: rows x features, or rows x depth x features."""
TOKEN_LAYERS = 4
REACH = 1
"""Layers on either side whose states are averaged with a layer's own, for probes that look at neighbours."""


@dataclass(frozen=True)
class FeatureSpec:
    """How a probe looks: at which layers it is fitted, and what it sees there."""

    layers: tuple[int, ...]
    several: tuple[int, ...] = ()
    """Layers that are seen together; then `layers` is the last of them alone. Of kind `mean`: layers that are averaged at the one layer
    of `layers`, or empty where each of them is averaged with its neighbours."""
    kind: str = "layer"
    deep: bool = False
    """Whether the depth axis is kept for the probe."""

    def of(self, view: LayerFeatures) -> LayerFeatures:
        """What the probe sees of an arm."""
        if self.kind == "mean":
            return lambda layer: np.mean([view(near) for near in self.seen(layer)], axis=0)
        if self.kind not in FEATURES:
            return view

        def together(_: int) -> np.ndarray:
            stack = np.stack([view(layer) for layer in self.several], axis=1)
            found = FEATURES[self.kind]().fit_transform(stack)
            return found.reshape(len(stack), -1, stack.shape[2]) if self.deep else found

        return together

    def seen(self, layer: int) -> tuple[int, ...]:
        """The layers whose states it looks at for its fit at a layer."""
        if self.several:
            return self.several
        if self.kind != "mean":
            return (layer,)
        place = self.layers.index(layer)
        return self.layers[max(0, place - REACH) : place + REACH + 1]

    def at(self, layer: int) -> FeatureSpec:
        """What it sees at one layer, without the others that were searched over."""
        return replace(self, layers=(layer,), several=() if self.kind == "layer" else self.seen(layer))


def feature_spec(spec: ProbeConfig, config: RunConfig, n_layers: int) -> FeatureSpec:
    """How a probe of a run looks.

    Raises:
        ConfigError: unknown probe, layers that do not exist, or features that do not suit the probe.
    """
    depth = lookup(spec.probe).depth_of
    kind = spec.features or {"layers": "concat", "tokens": "tokens", "neighbours": "mean"}.get(depth, "layer")
    if (kind == "tokens") != (depth == "tokens"):
        raise ConfigError(
            f"probe '{spec.label}' cannot use features={kind}; "
            + (
                "tokens are for probes that read them (class attribute depth_of = 'tokens'), such as attention and token_logistic"
                if kind == "tokens"
                else "it looks at tokens: leave features out"
            )
        )
    if (kind == "mean") != (depth == "neighbours"):
        raise ConfigError(
            f"probe '{spec.label}' sees the mean of neighbouring layers and nothing else; leave features out"
        )
    layers = parse_states(spec.layers or config.select.layers, n_layers)
    if kind in ("layer", "mean"):
        return FeatureSpec(tuple(layers), kind=kind)
    if kind == "tokens":
        able = [layer for layer in layers if 0 < layer < n_layers]
        if not able:
            raise ConfigError(f"probe '{spec.label}' reads tokens at layers 1 to {n_layers - 1}, got {layers}")
        return FeatureSpec(tuple(able if spec.layers else _spread(able, TOKEN_LAYERS)), kind=kind)
    most = lookup(spec.probe).most_layers
    chosen = tuple(layers if spec.layers or most is None else _spread(layers, most))
    return FeatureSpec((chosen[-1],), chosen, kind, deep=depth == "layers")


def _spread(layers: list[int], count: int) -> list[int]:
    """So many of them, evenly spaced, the last among them."""
    places = np.linspace(0, len(layers) - 1, min(count + 1, len(layers)))
    found = sorted({round(place) for place in places})
    return [layers[place] for place in found][-count:]


@dataclass(frozen=True)
class ActivationPair:
    """The states of a run's prompts, of one kind: adapter off, and on for each seed."""

    off: Any
    """`HiddenStates`, `MemoryStates`, or `TokenStates`: whatever gives a layer (and, for searches that are kept, a `key`)."""
    on: Mapping[int, Any]
    withheld: Any = None
    """Of replies: adapter off, in front of their first token."""

    @classmethod
    def of(cls, off: Any, on: Mapping[int, Any]) -> ActivationPair:
        """Recorded states; the second read of replies is the state in front of them (see `with_reads`)."""
        return cls(off, on, off.read(1) if getattr(off, "reads", 1) > 1 else None)

    def key(self, arm: str, seed: int | None) -> list[str]:
        """What an arm's features depend on, by content."""
        if arm == WITHHELD:
            assert self.withheld is not None
            return [arm, self.withheld.key]
        if arm == WITHHELD_ON:
            assert seed is not None
            return [arm, self.on[seed].read(1).key]
        names = [self.off.key] if arm != "adapter+probe" else []
        return [arm.partition("@")[0], *names, *([] if seed is None else [self.on[seed].key])]

    def views(self) -> dict[tuple[str, int | None], LayerFeatures]:
        """By (arm, seed); seed is None where no adapter is seen. Axes before the last are the same in all."""
        off = functools.lru_cache(maxsize=4)(self.off.layer)
        found: dict[tuple[str, int | None], LayerFeatures] = {
            ("base+probe", None): off,
            ("base+probe@matched", None): off,
        }
        if self.withheld is not None:
            found[WITHHELD, None] = functools.lru_cache(maxsize=4)(self.withheld.layer)
        for seed, states in self.on.items():
            on = functools.lru_cache(maxsize=4)(states.layer)
            found["adapter+probe", seed] = on
            if self.withheld is not None:
                found[WITHHELD_ON, seed] = functools.lru_cache(maxsize=4)(states.read(1).layer)
            found["both+probe", seed] = _both(off, on)
            found["diff+probe", seed] = _difference(off, on)
        return found

    def withheld_tokens(self) -> dict[tuple[str, int | None], LayerFeatures]:
        """The views in front of the reply for probes over tokens: there is one state to read."""
        return {key: _as_sequence(view) for key, view in self.views().items() if key[0] in (WITHHELD, WITHHELD_ON)}


def _as_sequence(view: LayerFeatures) -> LayerFeatures:
    """One state as a sequence of one token."""
    return lambda layer: view(layer)[:, None, :]


def _both(off: LayerFeatures, on: LayerFeatures) -> LayerFeatures:
    return lambda layer: np.concatenate([off(layer), on(layer)], axis=-1)


def _difference(off: LayerFeatures, on: LayerFeatures) -> LayerFeatures:
    return lambda layer: Difference().fit_transform(np.stack([off(layer), on(layer)], axis=1))
