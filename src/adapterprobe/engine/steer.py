"""Add a vector to the residual stream at the answer positions of a pass, and see what the model answers then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from adapterprobe.models.blocks import Structure


@contextlib.contextmanager
def adding(
    structure: Structure, where: tuple[torch.Tensor, torch.Tensor], layer: int, vector: torch.Tensor
) -> Iterator[None]:
    """Within, hidden state `layer` (after so many blocks) has `vector` added at the positions `where`; hooks are gone afterwards.

    Args:
        vector: width numbers, in the model's dtype and on its device.
    """

    def added(states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        states[where] += vector
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
