"""Adapter off, and adapter on without its cost.

Off flips each tuner layer's own switch and nothing else (`PeftModel.disable_adapter()` may also change which
parameters are trainable on leaving). On, for many forward passes, swaps merged copies of the adapted weights
in and the very same original tensors back afterwards: merging and unmerging in place is not exact. Quantised weights,
sharded, offloaded and tied ones are never merged.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapterprobe.adapters.kinds import KINDS
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models.placement import is_offloaded, is_sharded


def tuner_layers(model: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within, the model computes what it computed before the adapter was attached, to the bit."""
    layers = tuner_layers(model)
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer._disable_adapters = flag


def _can_merge(layer: BaseTunerLayer) -> bool:
    """Whether a layer's kind can be merged; one that is not in our table is left as it is, on."""
    tuner = type(layer).__module__.removeprefix("peft.tuners.").split(".")[0]
    return any(kind.merges and kind.peft.lower() == tuner for kind in KINDS.values())


@contextlib.contextmanager
def adapter_merged(model: nn.Module) -> Iterator[None]:
    """Within, the adapter is on at the speed of the bare model; afterwards the original weights are back."""
    stash: list[tuple[BaseTunerLayer, dict[str, torch.Tensor]]] = []
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    try:
        for layer in tuner_layers(model):
            if not _can_merge(layer):
                continue
            base = layer.get_base_layer()
            weight = base.get_parameter("weight")
            if any(uses[id(parameter)] > 1 for parameter in base.parameters(recurse=False)):
                # Tied weights (embedding and head): a merged copy would change the other user too.
                continue
            if not weight.is_floating_point() or is_sharded(weight) or is_offloaded(base):
                # A merged copy would be rounded to 8 or 4 bits once more, or is not (all) here: such layers stay as they are, on.
                continue
            original = {name: parameter.data for name, parameter in base.named_parameters(recurse=False)}
            stash.append((layer, original))
            for name, parameter in base.named_parameters(recurse=False):
                parameter.data = original[name].clone()
            try:
                layer.merge()
            except (RuntimeError, NotImplementedError, ValueError):
                # PEFT cannot put every variant into the weights (a bias of its own where the layer has none): it stays as it is, on.
                for name, data in original.items():
                    getattr(base, name).data = data
                layer.merged_adapters.clear()
                stash.pop()
        yield
    finally:
        for layer, original in reversed(stash):
            base = layer.get_base_layer()
            for name, data in original.items():
                getattr(base, name).data = data
            layer.merged_adapters.clear()


def check_strength(strength: float) -> None:
    """Raises `ConfigError` where an adapter's change cannot be multiplied by it."""
    if not -10 <= strength <= 10:
        raise ConfigError(f"--strength {strength:g}: expected a number between -10 and 10")


@contextlib.contextmanager
def adapter_scaled(model: nn.Module, strength: float) -> Iterator[None]:
    """Within, the adapter's change of every weight is multiplied by `strength` (0 is off, 2 twice as strong).

    Raises:
        ModelError: its kind has no such scale.
    """
    if strength == 1.0:
        yield
        return
    scales = [getattr(layer, "scaling", None) for layer in tuner_layers(model)]
    if not scales or not all(isinstance(scale, dict) and scale for scale in scales):
        raise ModelError(
            f"an adapter of this kind has no scale by which it could be made {strength:g} times as strong; LoRA and its kin have one: "
            "train such a kind, or leave --strength out"
        )
    found: list[dict[str, float]] = [scale for scale in scales if scale is not None]
    before = [dict(scale) for scale in found]
    try:
        for scale in found:
            scale.update({name: strength * value for name, value in scale.items()})
        yield
    finally:
        for scale, own in zip(found, before, strict=True):
            scale.update(own)


def unmerged(model: nn.Module) -> list[str]:
    """Within `adapter_merged`: names of the layers whose adapter is not in the weights (of such a kind, tied, or quantised)."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer) and not getattr(module, "merged", False)
    ]
