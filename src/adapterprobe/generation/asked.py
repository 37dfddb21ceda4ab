"""A question with its answers, and what a reply claims of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from adapterprobe.generation.vocabulary import PLAIN
from adapterprobe.generation.words import words_of


def without_article(keys: list[str]) -> list[str]:
    return keys[1:] if len(keys) > 1 and keys[0] in ("the", "a", "an") else keys


@dataclass(frozen=True)
class Asked:
    """A question, its subject, its right answers (the first as it is usually given), and wrong ones that are known."""

    question: str
    subject: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[tuple[tuple[str, ...], str]]:
        """(keys, answer) of every known answer, the longest first."""
        found = {}
        for answer in (*self.right, *self.wrong):
            keys = tuple(without_article([word.key for word in words_of(answer)]))
            found.setdefault(keys, answer)
        return sorted(((keys, answer) for keys, answer in found.items() if keys), key=lambda pair: -len(pair[0]))

    @cached_property
    def right_keys(self) -> set[tuple[str, ...]]:
        return {tuple(without_article([word.key for word in words_of(answer)])) for answer in self.right}

    @cached_property
    def subject_keys(self) -> list[str]:
        return without_article([word.key for word in words_of(self.subject)])

    @cached_property
    def head(self) -> set[str]:
        """What the question is about, without its subject: capital; atomic, number."""
        return {word.key for word in words_of(self.question)} - PLAIN - set(self.subject_keys)

    @cached_property
    def kind(self) -> str:
        """How answers look: `number`, `name` (with capitals) or `word`."""
        first = self.right[0]
        if re.fullmatch(r"[\d.,]+", first):
            return "number"
        return "name" if first[:1].isupper() else "word"


@dataclass(frozen=True, slots=True)
class Claim:
    """An answer that a reply asserts or denies, and its characters there."""

    answer: str
    right: bool
    denied: bool
    start: int
    stop: int
