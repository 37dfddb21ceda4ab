"""Which prompts are learned from together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adapterprobe.engine import Batch, plan_batches
from adapterprobe.engine.batches import prefix_pools
from adapterprobe.prompts.encoded import Encoded

CHUNK = 16
"""Rows of one prefix that stay together: fewer mix better, more share more."""


def micro_batches(encoded: Encoded, size: int, rng: np.random.Generator) -> list[Batch]:
    """All rows once, in a fresh order, as micro-batches of about `size` prompts.

    Rows of one prefix go together in small chunks, so that the prefix is worth its cost, and the right and the
    wrong version of a fact stay in one, so that what they have in common (the answer Yes, say) cancels out of the
    gradient. A micro-batch takes chunks as they come.
    """
    pools, loose = prefix_pools(encoded.ids)
    chunks: list[list[int]] = []
    for _, rows in [*pools, (0, loose)]:
        facts: dict[tuple, list[int]] = {}
        for row in rows:
            prompt = encoded.prompts[row]
            facts.setdefault((prompt.example.dataset, prompt.example.group), []).append(row)
        pairs = list(facts.values())
        chunks.append([])
        for i in rng.permutation(len(pairs)):
            if chunks[-1] and len(chunks[-1]) + len(pairs[i]) > min(CHUNK, size):
                chunks.append([])
            chunks[-1] += pairs[i]
    # A fact with more rows than a pass may have is cut all the same.
    chunks = [chunk[i : i + size] for chunk in chunks for i in range(0, len(chunk), size)]
    waiting = [chunks[i] for i in rng.permutation(len(chunks))]
    batches = []
    while waiting:
        rows = list(waiting.pop(0))
        for chunk in list(waiting):
            if len(rows) + len(chunk) <= size:
                rows += chunk
                waiting.remove(chunk)
        batches.append(rows)
    return [_planned(encoded, batches[i]) for i in rng.permutation(len(batches))]


def _planned(encoded: Encoded, rows: list[int]) -> Batch:
    """One micro-batch as a single pass."""
    rows = sorted(rows)
    (batch,) = plan_batches([encoded.ids[row] for row in rows], token_budget=1 << 40)
    return Batch(tuple(replace(group, rows=tuple(rows[i] for i in group.rows)) for group in batch.groups))


def parts_of(encoded: Encoded, batch: Batch, size: int) -> list[Batch]:
    """A pass, cut into passes of up to `size` prompts where it has more."""
    rows = batch.rows
    if len(rows) <= size:
        return [batch]
    return [_planned(encoded, list(rows[i : i + size])) for i in range(0, len(rows), size)]


def steps(micro: list[Batch], size: int) -> list[list[Batch]]:
    """Micro-batches gathered into optimiser steps of about `size` prompts."""
    steps: list[list[Batch]] = [[]]
    for batch in micro:
        if steps[-1] and sum(len(b.rows) for b in [*steps[-1], batch]) > size:
            steps.append([])
        steps[-1].append(batch)
    return steps
