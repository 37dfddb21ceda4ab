"""Groups of transcripts: one setting (a system prompt, a scenario, a question) must not stand on both sides of a split.

Which texts make a setting differs from set to set: in one every row has a scenario of its own, in another a few system prompts
are combined with many questions. So several ways to join rows are tried, the most cautious first, and the first is taken that
leaves groups enough to split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from adapterprobe.data.duplicates import near_groups, normalised
from adapterprobe.types import Conversation

ENOUGH = 20
"""Groups that are enough to split."""
LARGEST = 0.25
"""Share of all rows that no group may exceed."""


@dataclass(frozen=True)
class ContextGroups:
    """A group number for each conversation, and by what they were joined."""

    numbers: list[int]
    joined_by: str
    split_apart: str
    """What stands in several groups nevertheless; empty where nothing does."""

    def __str__(self) -> str:
        apart = f"; {self.split_apart}" if self.split_apart else ""
        return f"{len(set(self.numbers))} groups of contexts, joined by {self.joined_by}{apart}"


def context_groups(conversations: Sequence[Conversation]) -> ContextGroups:
    """Conversations in groups by their setting, the reply left aside.

    Joined are, as long as `ENOUGH` groups remain and none holds more than `LARGEST` of all rows: rows of one system prompt, of
    nearly one question (the last turn before the reply), and of nearly one context.
    """
    system = _same(["\n".join(c.texts("system", "developer")) for c in conversations])
    asked = ["\n".join(c.texts("user", "tool")[-1:]) or c.script for c in conversations]
    question, near_question = _same(asked), near_groups(asked)
    context = _same([c.script for c in conversations])
    near_context = near_groups([c.script for c in conversations])
    ways: list[tuple[str, list[list[int]]]] = [
        ("system prompt, near-duplicate questions and near-duplicate contexts", [system, near_question, near_context]),
        ("system prompt and near-duplicate questions", [system, near_question, context]),
        ("near-duplicate questions", [near_question, context]),
        ("system prompt", [system, context]),
        ("question", [question, context]),
        ("context, word for word", [context]),
    ]
    tried = [(name, _joined(keys)) for name, keys in ways]
    name, numbers = next(((n, g) for n, g in tried if _enough(g)), max(tried, key=lambda way: len(set(way[1]))))
    return ContextGroups(numbers, name, _apart(numbers, system))


def _same(texts: Sequence[str]) -> list[int]:
    """A number by text; rows without one have a number of their own."""
    known: dict[str, int] = {}
    return [known.setdefault(normalised(text) or f"\0{row}", len(known)) for row, text in enumerate(texts)]


def _joined(keys: Sequence[Sequence[int]]) -> list[int]:
    """Rows that share a number in any of the keys, directly or by chains, have one number."""
    rows = len(keys[0])
    offset, starts, ends = rows, [], []
    for key in keys:
        starts += range(rows)
        ends += [offset + number for number in key]
        offset += max(key) + 1
    links = csr_matrix((np.ones(len(starts)), (starts, ends)), (offset, offset))
    return connected_components(links, directed=False)[1][:rows].tolist()


def _enough(numbers: Sequence[int]) -> bool:
    counts = np.unique(numbers, return_counts=True)[1]
    return len(counts) >= ENOUGH and counts.max() <= max(LARGEST * len(numbers), 2)


def _apart(numbers: Sequence[int], system: Sequence[int]) -> str:
    groups: dict[int, set[int]] = {}
    for number, prompt in zip(numbers, system, strict=True):
        groups.setdefault(prompt, set()).add(number)
    several = sum(len(found) > 1 for found in groups.values())
    return f"{several} system prompts stand in several groups" if several else ""
