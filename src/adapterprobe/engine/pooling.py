"""One state out of the states of several tokens, in fp32, while a pass runs: what all layers have of all tokens is never kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapterprobe.engine.batches import Batch
from adapterprobe.readout import TokenReads


class BatchReads:
    """The reads of one planned batch: called with the states of a pass, it gives the pooled ones.

    Args:
        reads: of all rows that were planned, by their numbers.
        shape: rows and tokens of the pass's states.
    """

    def __init__(self, batch: Batch, shared: bool, reads: Sequence[TokenReads], longest: int, device: torch.device):
        self._reads: list[tuple[str, torch.Tensor, torch.Tensor, list[int]]] = []
        places = _packed_places(batch) if shared else _padded_places(batch, longest)
        for read in reads:
            flat: list[int] = []
            lengths: list[int] = []
            for place, row in zip(places, batch.rows, strict=True):
                start, stop = read.spans[row]
                if read.pool in ("first", "last"):
                    start, stop = (start, start + 1) if read.pool == "first" else (stop - 1, stop)
                flat += [place.of(token) for token in range(start, stop)]
                lengths.append(stop - start)
            owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            self._reads.append((read.pool, torch.tensor(flat, device=device), owner.to(device), lengths))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(reads * rows) x width, one read after the other, of the pass's rows x tokens x width."""
        flat = states.detach().flatten(0, 1)
        found = [self._pooled(flat.index_select(0, read[1]), *read) for read in self._reads]
        return torch.cat(found)

    @staticmethod
    def _pooled(
        tokens: torch.Tensor, pool: str, _: torch.Tensor, owner: torch.Tensor, lengths: list[int]
    ) -> torch.Tensor:
        tokens = tokens.float()
        if pool in ("first", "last"):
            return tokens
        if pool == "mean":
            total = torch.zeros(len(lengths), tokens.shape[1], device=tokens.device).index_add_(0, owner, tokens)
            return total / torch.tensor(lengths, device=tokens.device)[:, None]
        if pool == "max":
            return torch.stack([part.amax(0) for part in tokens.split(lengths)])
        width = int(pool.partition(":")[2])
        return torch.stack(
            [
                torch.nn.functional.avg_pool1d(part.T[None], min(width, len(part)), 1)[0].amax(1)
                for part in tokens.split(lengths)
            ]
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row's tokens are among the flattened tokens of a pass."""

    prefix: int
    shared: int
    own: int

    def of(self, token: int) -> int:
        return self.prefix + token if token < self.shared else self.own + token - self.shared


def _packed_places(batch: Batch) -> list[_Place]:
    found, start = [], 0
    for group in batch.groups:
        own = start + len(group.prefix)
        for suffix in group.suffixes:
            found.append(_Place(start, len(group.prefix), own))
            own += len(suffix)
        start = own
    return found


def _padded_places(batch: Batch, longest: int) -> list[_Place]:
    return [_Place(number * longest, 0, number * longest) for number in range(len(batch.rows))]
