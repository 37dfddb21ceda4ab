"""Plan forward passes over many token sequences: which prefix each shares, and who runs with whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

OVERHEAD = 48
"""What a separate prefix pass costs beside its tokens (small batches use the hardware badly), in tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that run together: prefixes of one length, then each row's own tokens after its prefix."""

    prefixes: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    """For each row, which of the prefixes it continues."""
    rows: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]

    def take(self, places: Sequence[int]) -> Batch:
        """Some of the rows (by place in the batch), with the prefixes that they need."""
        used = sorted({self.owners[i] for i in places})
        return Batch(
            tuple(self.prefixes[k] for k in used) if self.prefixes else (),
            tuple(used.index(self.owners[i]) for i in places),
            tuple(self.rows[i] for i in places),
            tuple(self.suffixes[i] for i in places),
        )


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning, at most one less than either: the answer position is never shared."""
    limit = min(len(a), len(b)) - 1
    same = 0
    while same < limit and a[same] == b[same]:
        same += 1
    return same


def _partition(
    low: int, high: int, shared: list[int], total: list[int], floor: int
) -> tuple[int, list[tuple[int, int, int]]]:
    """Cheapest way to run sorted sequences low .. high - 1: (tokens, [(low, high, prefix length)]).

    Either all of them share their common beginning, or the range is cut where its neighbours share least.
    """
    if high - low == 1:
        return total[low], [(low, high, 0)]
    inner = shared[low : high - 1]
    common = min(inner)
    prefix = common if common >= floor else 0
    whole = sum(total[low:high]) - prefix * (high - low - 1)
    if common == max(inner):
        return whole, [(low, high, prefix)]
    cuts = [low, *(low + i + 1 for i, value in enumerate(inner) if value == common), high]
    parts: list[tuple[int, int, int]] = []
    cost = 0
    for start, end in itertools.pairwise(cuts):
        tokens, pieces = _partition(start, end, shared, total, floor)
        cost += tokens + OVERHEAD
        parts += pieces
    return (cost - OVERHEAD, parts) if cost - OVERHEAD < whole else (whole, [(low, high, prefix)])


def plan_batches(
    sequences: Sequence[Sequence[int]], token_budget: int = 2048, share: bool = True, floor: int = 8
) -> list[Batch]:
    """Group sequences by shared prefix, sort by length, cut into batches.

    Args:
        sequences: token ids of every row; each has at least one token.
        token_budget: the most padded suffix tokens of a batch (a single longer row still runs).
        share: whether prefixes are shared at all (False: plain length-sorted batches).
        floor: the shortest prefix worth sharing.

    Returns:
        Batches that hold every row exactly once, in an order that depends on the sequences alone.
    """
    pools, loose = prefix_pools(sequences, share, floor)
    batches = []
    for length, members in _merge(sequences, pools, token_budget):
        batches += _cut(sequences, length, members, token_budget)
    return batches + (_cut(sequences, 0, [loose], token_budget) if loose else [])


def prefix_pools(
    sequences: Sequence[Sequence[int]], share: bool = True, floor: int = 8
) -> tuple[list[tuple[int, list[int]]], list[int]]:
    """Rows by the prefix that they share, [(its length, rows)], and the rows that share nothing worth it."""
    if not sequences:
        return [], []
    order = sorted(range(len(sequences)), key=lambda i: (tuple(sequences[i]), i))
    if share and len(order) > 1:
        ranked = [sequences[i] for i in order]
        shared = [_common(a, b) for a, b in itertools.pairwise(ranked)]
        _, groups = _partition(0, len(order), shared, [len(s) for s in ranked], floor)
    else:
        groups = [(0, len(order), 0)]
    pools = [(prefix, [order[i] for i in range(low, high)]) for low, high, prefix in groups if prefix]
    return pools, [order[i] for low, high, prefix in groups if prefix == 0 for i in range(low, high)]


def _merge(
    sequences: Sequence[Sequence[int]], pools: list[tuple[int, list[int]]], token_budget: int
) -> list[tuple[int, list[list[int]]]]:
    """Small pools gathered so that their prefixes run in one pass: (common prefix length, rows per prefix).

    Prefixes of one pass must have one length, so that nothing is padded between prefix and suffix; a longer
    prefix gives its last tokens to its rows' suffixes, if that costs few tokens.
    """
    merged: list[tuple[int, list[list[int]]]] = []
    load = 0
    for prefix, rows in sorted(pools, key=lambda pool: (pool[0], pool[1])):
        if merged:
            length, members = merged[-1]
            extra = (prefix - length) * len(rows)
            tokens = sum(len(sequences[r]) - length for r in rows)
            if load + tokens <= token_budget and extra <= 2 * OVERHEAD:
                members.append(rows)
                load += tokens
                continue
        merged.append((prefix, [rows]))
        load = sum(len(sequences[r]) - prefix for r in rows)
    return merged


def _cut(sequences: Sequence[Sequence[int]], length: int, members: list[list[int]], token_budget: int) -> list[Batch]:
    """Rows of one pass sorted by length and cut into batches by padded tokens."""
    owner = {row: place for place, rows in enumerate(members) for row in rows}
    rows = sorted(owner, key=lambda i: (len(sequences[i]), i))
    whole = Batch(
        prefixes=tuple(tuple(sequences[rows_[0]][:length]) for rows_ in members) if length else (),
        owners=tuple(owner[row] for row in rows),
        rows=tuple(rows),
        suffixes=tuple(tuple(sequences[row][length:]) for row in rows),
    )
    batches, start = [], 0
    for place, suffix in enumerate(whole.suffixes):
        if place > start and (place - start + 1) * len(suffix) > token_budget:
            batches.append(list(range(start, place)))
            start = place
    batches.append(list(range(start, len(rows))))
    return [whole.take(places) for places in batches]


def useful_tokens(batches: Sequence[Batch]) -> int:
    """Tokens that a pass over the batches must compute: prefixes once, suffixes without padding."""
    prefixes = {prefix for batch in batches for prefix in batch.prefixes}
    return sum(map(len, prefixes)) + sum(len(s) for batch in batches for s in batch.suffixes)
