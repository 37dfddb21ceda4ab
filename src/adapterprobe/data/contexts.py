"""Groups of transcripts: one setting (a system prompt, a scenario, a question) must not stand on both sides of a split.

Which texts make a setting differs from set to set: in one every row has a scenario of its own, in another a few system prompts
are combined with many questions. So several ways to join rows are tried, the most cautious first, and the first is taken that
leaves groups enough to split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from adapterprobe.data.duplicates import near_groups, normalised, words_of
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


def context_groups(conversations: Sequence[Conversation], rows: Sequence[object] | None = None) -> ContextGroups:
    """Conversations in groups by their setting, the reply left aside.

    Joined are, as long as `ENOUGH` groups remain and none holds more than `LARGEST` of all rows: rows of one system prompt, of
    nearly one question (the last turn before the reply), and of nearly one context.

    Args:
        rows: what row each comes from; those of one row (several turns of one conversation, a pair) are always joined.
    """
    system = _same(["\n".join(c.instructions) for c in conversations])
    asked = ["\n".join(c.texts("user", "tool")[-1:]) or c.script for c in conversations]
    question, near_question = _same(asked), near_groups(asked)
    context = _same([c.script for c in conversations])
    row = _numbers(range(len(conversations)) if rows is None else rows)
    near_context = near_groups([c.script for c in conversations])
    ways: list[tuple[str, list[list[int]]]] = [
        ("system prompt, near-duplicate questions and near-duplicate contexts", [system, near_question, near_context]),
        ("system prompt and near-duplicate questions", [system, near_question, context]),
        ("near-duplicate questions", [near_question, context]),
        ("system prompt", [system, context]),
        ("question", [question, context]),
        ("context, word for word", [context]),
    ]
    tried = [(name, _joined([*keys, row])) for name, keys in ways]
    name, numbers = next(((n, g) for n, g in tried if _enough(g)), max(tried, key=lambda way: len(set(way[1]))))
    return ContextGroups(numbers, name, _apart(numbers, system))


def _same(texts: Sequence[str]) -> list[int]:
    """A number by text; rows without one have a number of their own."""
    return _numbers([normalised(text) or row for row, text in enumerate(texts)])


def _numbers(keys: Iterable[object]) -> list[int]:
    known: dict[object, int] = {}
    return [known.setdefault(key, len(known)) for key in keys]


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


@dataclass(frozen=True)
class MatchedContexts:
    """How far the same context has replies of both labels: only there can reading the reply be told from reading the context."""

    contexts: int
    both: int
    """Contexts with honest and deceptive replies."""
    rows: int
    """Rows of these."""

    @property
    def share(self) -> float:
        return self.both / max(1, self.contexts)

    def __str__(self) -> str:
        if not self.both:
            return (
                f"none of {self.contexts} contexts has both an honest and a deceptive reply: the context is the label, and no detector "
                "can be shown to read the reply"
            )
        return f"{self.both} of {self.contexts} contexts have honest and deceptive replies ({self.rows} rows)"


def context_key(conversation: Conversation) -> str:
    """All turns before the reply, word for word: equal for replies to one context."""
    return normalised(conversation.script)


def matched_contexts(replies: Iterable[tuple[Conversation | None, bool | None]]) -> MatchedContexts:
    """Contexts (see `context_key`) of transcripts, and those of both labels.

    Args:
        replies: each with its label.
    """
    found: dict[str, list[bool]] = {}
    for conversation, label in replies:
        if conversation is not None:
            found.setdefault(context_key(conversation), []).append(bool(label))
    both = [labels for labels in found.values() if len(set(labels)) > 1]
    return MatchedContexts(len(found), len(both), sum(map(len, both)))


ECHO = 6
"""Words in a row that a reply shares with its instruction before it counts as repeating it."""


def echoed(conversation: Conversation) -> bool:
    """Whether a reply repeats its instruction: `ECHO` words in a row of the system's or developer's text.

    >>> from adapterprobe.types import Message
    >>> system = Message("system", "Lie to the user about where Lyon is.")
    >>> echoed(Conversation((system,), "I was told to lie to the user about where it is."))
    True
    >>> echoed(Conversation((system,), "Lyon is in Peru."))
    False
    """
    told = [words_of(text) for text in conversation.instructions]
    parts = {tuple(words[i : i + ECHO]) for words in told for i in range(len(words) - ECHO + 1)}
    reply = words_of(conversation.reply)
    return any(tuple(reply[i : i + ECHO]) in parts for i in range(len(reply) - ECHO + 1))
