"""Plan forward passes over many token sequences: which share a prefix, and what runs in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

OVERHEAD = 16
"""What a separate prefix costs beside its tokens (attention goes prefix by prefix), in tokens."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that continue one prefix (which may be empty)."""

    prefix: tuple[int, ...]
    rows: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(map(len, self.suffixes))


@dataclass(frozen=True, slots=True)
class Place:
    """Where one row's tokens are among many: the shared ones from `prefix` on, the others from `own` on."""

    prefix: int
    shared: int
    """How many are shared."""
    own: int

    def of(self, token: int) -> int:
        """Where a token of the row is."""
        return self.prefix + token if token < self.shared else self.own + token - self.shared

    def moved(self, by: int) -> Place:
        return Place(self.prefix + by, self.shared, self.own + by)


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs in one pass."""

    groups: tuple[Group, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """All token ids of each row."""
        return [group.prefix + suffix for group in self.groups for suffix in group.suffixes]

    @property
    def tokens(self) -> int:
        """Tokens that a packed pass computes."""
        return sum(group.tokens for group in self.groups)

    def packed_places(self) -> list[Place]:
        """Where each row's tokens are when all groups lie end to end, as a packed pass has them."""
        found, start = [], 0
        for group in self.groups:
            own = start + len(group.prefix)
            for suffix in group.suffixes:
                found.append(Place(start, len(group.prefix), own))
                own += len(suffix)
            start = own
        return found


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


def plan_batches(
    sequences: Sequence[Sequence[int]], token_budget: int = 2048, share: bool = True, floor: int = 8
) -> list[Batch]:
    """Group sequences by shared prefix, sort by length, pack into batches.

    Args:
        sequences: token ids of every row; each has at least one token.
        token_budget: about the most tokens of a pass (a longer row, or a long prefix with rows worth it, still
            runs).
        share: whether prefixes are shared (False: length-sorted batches, for passes that pad).
        floor: the shortest prefix worth sharing.

    Returns:
        Batches that hold every row exactly once, in an order that depends on the sequences alone.
    """
    pools, loose = prefix_pools(sequences, share, floor)
    pieces = [group for length, rows in pools for group in _pieces(sequences, length, rows, token_budget, False)]
    pieces += _pieces(sequences, 0, loose, token_budget, not share)
    pieces.sort(key=lambda group: (-group.tokens, group.prefix, group.rows))
    # First fit, longest first: full passes, and few of them. Passes that pad are cut to size already.
    packed: list[tuple[int, list[Group]]] = []
    for group in pieces:
        place = next((i for i, (load, _) in enumerate(packed) if load + group.tokens <= token_budget), None)
        if place is None or not share:
            packed.append((group.tokens, [group]))
        else:
            load, groups = packed[place]
            packed[place] = (load + group.tokens, [*groups, group])
    return [Batch(tuple(groups)) for _, groups in packed]


def _pieces(sequences, length: int, rows: list[int], token_budget: int, padded: bool) -> list[Group]:
    """Rows of one prefix in order of length, cut where a pass would be too large."""
    rows = sorted(rows, key=lambda i: (len(sequences[i]), i))
    # A prefix is computed once a piece: with less than twice its length behind it, that would be most of the work.
    room = max(token_budget - length, 2 * length)
    pieces: list[list[int]] = []
    load = 0
    for row in rows:
        own = len(sequences[row]) - length
        after = own * (len(pieces[-1]) + 1) if pieces and padded else load + own
        if not pieces or after > room:
            pieces.append([])
            load = 0
        pieces[-1].append(row)
        load += own
    return [
        Group(
            tuple(sequences[piece[0]][:length]),
            tuple(piece),
            tuple(tuple(sequences[row][length:]) for row in piece),
        )
        for piece in pieces
    ]


def useful_tokens(batches: Sequence[Batch]) -> int:
    """Tokens that a pass over the batches must compute: prefixes once, suffixes without padding."""
    prefixes = {group.prefix for batch in batches for group in batch.groups}
    return sum(map(len, prefixes)) + sum(len(s) for batch in batches for g in batch.groups for s in g.suffixes)
