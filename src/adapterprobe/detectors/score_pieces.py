"""Rows of a file in pieces, and who scores them: this process, or others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from adapterprobe.models.placement import DeviceMap
from adapterprobe.types import Prompt

Piece = list[tuple[int, Any]]
"""Rows with their numbers."""
RowScorer = tuple[Callable[[int, Any], Prompt], Callable[[list[Prompt]], list[dict]]]
"""What scores: how a row becomes a prompt, and prompts records."""
OpenScorer = Callable[[], RowScorer]
PieceScorer = Callable[[Iterable[Piece]], Iterator[tuple[Piece, list[dict]]]]
"""Pieces with the records of their rows, in their order."""
Scoring = Callable[[OpenScorer, DeviceMap], AbstractContextManager[PieceScorer]]
"""Within, pieces are scored by what an opener opens, on such a device."""


@contextlib.contextmanager
def scored_here(opened: OpenScorer, device: DeviceMap) -> Iterator[PieceScorer]:
    """One piece after the other, in this process."""
    prompt, score = opened()

    def scored(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, list[dict]]]:
        for piece in pieces:
            yield piece, score([prompt(number, row) for number, row in piece])

    yield scored
