"""One state out of the states of several tokens, in fp32, while a pass runs: what all layers have of all tokens is never kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapterprobe.engine.batches import Batch, Place
from adapterprobe.readout import TokenReads


def token_places(batch: Batch, shared: bool, longest: int) -> list[Place]:
    """Where each row's tokens are in the flattened states of a pass.

    Args:
        shared: whether the pass is packed; else its rows are padded to `longest` tokens.
    """
    if shared:
        return batch.packed_places()
    return [Place(row * longest, 0, row * longest) for row in range(len(batch.rows))]


def pooled(tokens: torch.Tensor, pool: str) -> torch.Tensor:
    """One state (width numbers, fp32) of the states of a row's tokens (tokens x width)."""
    read = _Read([Place(0, 0, 0)], [(0, len(tokens))], pool)
    return read(tokens)[0]


class BatchReads:
    """The reads of one planned batch: called with the states of a pass, it gives the pooled ones.

    Args:
        shared: whether the pass is packed; else its rows are padded to `longest` tokens.
        reads: of all rows that were planned, by their numbers.
    """

    def __init__(self, batch: Batch, shared: bool, reads: Sequence[TokenReads], longest: int):
        places = token_places(batch, shared, longest)
        self._reads = [_Read(places, [read.spans[row] for row in batch.rows], read.pool) for read in reads]

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(reads * rows) x width, one read after the other, of the pass's rows x tokens x width."""
        flat = states.flatten(0, 1)
        return torch.cat([read(flat) for read in self._reads])


class _Read:
    """One read of a batch: which tokens of the pass it takes, worked out once for all layers."""

    def __init__(self, places: Sequence[Place], spans: Sequence[tuple[int, int]], pool: str):
        ends = {"first": lambda start, stop: (start, start + 1), "last": lambda start, stop: (stop - 1, stop)}
        if pool in ends:
            spans = [ends[pool](*span) for span in spans]
        self.pool = pool
        self.lengths = [stop - start for start, stop in spans]
        taken = [place.of(token) for place, span in zip(places, spans, strict=True) for token in range(*span)]
        self.taken = torch.tensor(taken)
        self.counts = torch.tensor(self.lengths)
        self.owner = torch.repeat_interleave(torch.arange(len(spans)), self.counts)

    def _go_to(self, device: torch.device) -> None:
        """Follow the states: a model's blocks may be on several devices."""
        self.taken, self.counts, self.owner = (t.to(device) for t in (self.taken, self.counts, self.owner))

    def __call__(self, flat: torch.Tensor) -> torch.Tensor:
        """rows x width of tokens x width."""
        self._go_to(flat.device)
        tokens = flat.index_select(0, self.taken).float()
        if self.pool in ("first", "last"):
            return tokens
        if self.pool == "mean":
            total = torch.zeros(len(self.lengths), tokens.shape[1], device=tokens.device)
            return total.index_add_(0, self.owner, tokens) / self.counts[:, None]
        if self.pool == "max":
            return torch.stack([part.amax(0) for part in tokens.split(self.lengths)])
        width = int(self.pool.partition(":")[2])
        return torch.stack(
            [
                torch.nn.functional.avg_pool1d(part.T[None], min(width, len(part)), 1)[0].amax(1)
                for part in tokens.split(self.lengths)
            ]
        )
