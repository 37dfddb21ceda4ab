"""Passes that run out of memory, taken again in halves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from adapterprobe.engine.batches import Batch, Group
from adapterprobe.errors import ModelError
from adapterprobe.progress import say

T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on an accelerator, or of the CPU's allocator."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, (RuntimeError, MemoryError)) and ("out of memory" in text or "can't allocate memory" in text)
    )


def give_back() -> None:
    """Let an accelerator's allocator give back what nobody holds."""
    # What ran out may be the CPU's memory, with an accelerator that is in no state to answer.
    with contextlib.suppress(RuntimeError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The first and the second half of a batch's rows; a group that is cut keeps its prefix in both."""
    middle, seen = len(batch.rows) // 2, 0
    first, second = [], []
    for group in batch.groups:
        cut = min(max(middle - seen, 0), len(group.rows))
        if cut:
            first.append(Group(group.prefix, group.rows[:cut], group.suffixes[:cut]))
        if cut < len(group.rows):
            second.append(Group(group.prefix, group.rows[cut:], group.suffixes[cut:]))
        seen += len(group.rows)
    return Batch(tuple(first)), Batch(tuple(second))


def _several_processes() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def in_parts(take: Callable[[Batch], T], batch: Batch) -> Iterator[T]:
    """What `take` makes of a batch, or, where memory runs out, of its halves, or of theirs, in the order of its rows.

    Raises:
        ModelError: a single row does not fit.
    """
    try:
        taken = take(batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or _several_processes():
            # Other processes may be in the midst of a pass that needs this one.
            raise
        shortage = str(error).splitlines()[0][:120]
    else:
        yield taken
        return
    # Out of the handler: the error holds the pass's tensors.
    give_back()
    if len(batch.rows) == 1:
        raise ModelError(
            f"a single prompt of {len(batch.sequences[0])} tokens does not fit into memory ({shortage}); use shorter texts, a model in fewer "
            "bits (model.quantize) or a larger device"
        )
    say(f"out of memory: a pass of {len(batch.rows)} prompts is taken in halves")
    for half in halves(batch):
        yield from in_parts(take, half)
