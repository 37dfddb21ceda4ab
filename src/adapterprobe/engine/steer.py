"""Add a vector to the residual stream at the answer positions of a pass, and see what the model answers then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from adapterprobe.models.blocks import Structure

Where = tuple[torch.Tensor, torch.Tensor]
"""Index of the answer positions: (row of the pass, token in it), one entry per prompt."""


def on_device(where: Where, device: torch.device) -> Where:
    """The index for tensors there: a model's blocks may be on several devices."""
    return where[0].to(device), where[1].to(device)


def at(states: torch.Tensor, where: Where) -> torch.Tensor:
    """What states (passes' rows x tokens x width) are at positions: prompts x width, on their device."""
    return states[on_device(where, states.device)]


@contextlib.contextmanager
def adding(structure: Structure, where: Where, layer: int, vector: torch.Tensor) -> Iterator[None]:
    """Within, hidden state `layer` (after so many blocks) has `vector` added at the positions `where`; hooks are gone afterwards.

    Args:
        vector: width numbers, in the model's dtype.
    """

    def added(states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        states[on_device(where, states.device)] += vector.to(states.device)
        return states

    def entering(module, args, kwargs):
        if args:
            return (added(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": added(kwargs["hidden_states"])}

    def leaving(module, args, output):
        if isinstance(output, (tuple, list)):
            return type(output)((added(output[0]), *output[1:]))
        return added(output)

    if layer == 0:
        handle = structure.blocks[0].register_forward_pre_hook(entering, with_kwargs=True)
    else:
        handle = structure.blocks[layer - 1].register_forward_hook(leaving)
    try:
        yield
    finally:
        handle.remove()
