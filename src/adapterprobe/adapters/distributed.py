"""Several processes, by accelerate: each does its share of a step's passes, and all take the same step.

Started by `torchrun`, or on GPUs by `accelerate launch`; without them there is one process and nothing here does anything.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


@functools.cache
def _state():
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def count() -> int:
    state = _state()
    return state.num_processes if state else 1


def rank() -> int:
    state = _state()
    return state.process_index if state else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def mine(items: Sequence[Item]) -> Sequence[Item]:
    """This process's share."""
    return items[rank() :: count()]


def wait() -> None:
    """Until all processes are here."""
    if state := _state():
        state.wait_for_everyone()


def broadcast_bool(value: bool) -> bool:
    """What the main process says."""
    if not _state():
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


@torch.no_grad()
def all_reduce_gradients(parameters: Sequence[torch.nn.Parameter], number: float) -> float:
    """Add the gradients, and a number, over all processes. Every process then holds the same."""
    if not _state():
        return number
    from accelerate.utils import reduce

    device = parameters[0].device
    flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    joined = torch.cat([*(g.reshape(-1).float() for g in flat), torch.tensor([number], device=device)])
    joined = reduce(joined, "sum")
    place = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = joined[place : place + size].view_as(parameter).to(parameter.dtype)
        place += size
    return float(joined[-1])
