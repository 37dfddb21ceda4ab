"""Which rows are kept: by a seeded hash, so that the choice does not depend on their order, balanced by class or context."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from adapterprobe.data.contexts import context_key
from adapterprobe.data.items import Item


def priority(seed: int, key: str) -> int:
    """A number that orders keys by chance, the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{key}".encode()).digest()[:8])


class Sampler:
    """Keeps at most `most` of the items that stream by, as many of each class: those whose key has the lowest priority.

    Items with one key (a group) stand or fall together within their class.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.seed = most, seed
        self.seen = 0
        self._labels: dict[bool | None, int] = {}
        self._heaps: dict[bool | None, list[tuple[int, int, Item]]] = {}

    def add(self, key: str, item: Item) -> None:
        heap = self._heaps.setdefault(item.label, [])
        heapq.heappush(heap, (-priority(self.seed, key), -self.seen, item))
        self.seen += 1
        self._labels[item.label] = self._labels.get(item.label, 0) + 1
        # While the other class is rare, this one may have its room.
        while len(heap) > self.most:
            heapq.heappop(heap)

    def classes(self) -> dict[str, int]:
        """How many claims of each label streamed by."""
        return {str(label).lower(): count for label, count in self._labels.items() if label is not None}

    def items(self) -> list[Item]:
        """The kept items, in the order in which they came."""
        sizes = {label: len(heap) for label, heap in self._heaps.items()}
        kept = []
        for label, heap in self._heaps.items():
            others = sum(size for other, size in sizes.items() if other is not label)
            room = max(self.most // max(len(sizes), 1), self.most - others)
            kept += heapq.nlargest(room, heap)
        return [item for _, _, item in sorted(kept, key=lambda entry: -entry[1])]


def matched(items: Iterable[Item], seed: int) -> tuple[list[Item], int, int]:
    """Replies of contexts (see `context_key`) that have honest and deceptive ones, as many of each by chance:
    within a context no word before the reply goes with its label.

    Returns:
        The items kept, in their order; how many were left out with their context, which has one kind alone; and how many as the
        surplus of one kind in a context that has both.
    """
    items = list(items)
    contexts: dict[str, tuple[list[Item], list[Item]]] = {}
    for item in items:
        if item.conversation is not None:
            contexts.setdefault(context_key(item.conversation), ([], []))[bool(item.label)].append(item)
    kept: set[int] = set()
    surplus = 0
    for kinds in contexts.values():
        most = min(map(len, kinds))
        for mine in kinds:
            by_chance = sorted(mine, key=lambda item: priority(seed, item.words))
            kept |= {id(item) for item in by_chance[:most]}
            surplus += len(mine) - most if most else 0
    found = [item for item in items if id(item) in kept]
    return found, len(items) - len(found) - surplus, surplus


def balanced(items: Iterable[Item], seed: int) -> tuple[list[Item], int]:
    """(items with as many true as false claims, how many were left out).

    First groups with the frequent class alone are left out, by chance, then rows of that class out of groups that have
    both, which keep one of each. Questions are balanced by themselves: each has a right and a wrong answer.
    """
    items = list(items)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    surplus = sum((item.label is True) - (item.label is False) for item in items)
    often = surplus > 0
    pure = [group for group, mine in groups.items() if all(item.label is often for item in mine)]
    left_out: set[str] = set()
    for group in sorted(pure, key=lambda group: priority(seed, group)):
        if len(groups[group]) <= abs(surplus):
            left_out.add(group)
            surplus -= len(groups[group]) if often else -len(groups[group])
        if surplus == 0:
            break
    gone: set[int] = set()
    rows = [(row, item) for row, item in enumerate(items) if item.label is often and item.group not in left_out]
    spare = {group: sum(item.label is often for item in mine) - 1 for group, mine in groups.items()}
    for row, item in sorted(rows, key=lambda entry: priority(seed, f"{entry[1].group}\x1f{entry[1].words}")):
        if surplus == 0:
            break
        if spare[item.group] > 0:
            gone.add(row)
            spare[item.group] -= 1
            surplus += -1 if often else 1
    kept = [item for row, item in enumerate(items) if row not in gone and item.group not in left_out]
    return kept, len(items) - len(kept)
