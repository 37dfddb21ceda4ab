"""Give every fact a wrong object, so that within a split each object is right as often as wrong.

Were the wrong objects drawn freely, "Paris" would mostly be proposed where it is right, and a detector
could tell truth from the object alone. Here the wrong objects of a split are a permutation of its right
ones: found as a minimum-cost assignment with random costs where right ones are forbidden. With
`wrong="near"` the listed near misses (capitals of the same continent ...) cost less than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

FORBIDDEN = 1e6


class Pairable(Protocol):
    """A fact with its right object, and the wrong ones that are listed for it."""

    @property
    def object(self) -> str: ...

    @property
    def wrong(self) -> Sequence[str]: ...

    def right(self, answer: str) -> bool: ...


F = TypeVar("F", bound=Pairable)


def _costs(
    facts: Sequence[Pairable], right: np.ndarray, rng: np.random.Generator, wrong: str, listed_only: bool
) -> np.ndarray:
    """Cost (rows: facts, columns: the facts whose object is lent) of each wrong object."""
    cost = rng.random((len(facts), len(facts)))
    for row, fact in enumerate(facts):
        listed = set(fact.wrong)
        for column, lender in enumerate(facts):
            if right[row, column]:
                cost[row, column] = FORBIDDEN
            elif lender.object not in listed:
                cost[row, column] += FORBIDDEN if listed_only else float(wrong == "near")
    return cost


def pair_with_wrong_objects(
    facts: Sequence[F], rng: np.random.Generator, wrong: str = "any", listed_only: bool = False
) -> list[tuple[F, str]]:
    """Pairs of (fact, wrong object). Facts that cannot be paired are left out, most common object first.

    An object that is right for more than about half of the facts cannot be wrong as often as it is right:
    then facts with it are dropped, by chance, until the rest can be balanced.
    """
    facts = [facts[i] for i in rng.permutation(len(facts))]
    while facts:
        right = np.array([[fact.right(lender.object) for lender in facts] for fact in facts])
        cost = _costs(facts, right, rng, wrong, listed_only)
        rows, columns = linear_sum_assignment(cost)
        often = right.sum(0)
        # Of the two that cannot be paired, the one whose object is right for more facts stands in more ways.
        bad = [r if often[r] >= often[c] else c for r, c in zip(rows, columns, strict=True) if cost[r, c] >= FORBIDDEN]
        if not bad:
            return [(facts[r], facts[c].object) for r, c in zip(rows, columns, strict=True)]
        drop = set(bad[: max(1, len(bad) // 2)])
        facts = [fact for i, fact in enumerate(facts) if i not in drop]
    return []
