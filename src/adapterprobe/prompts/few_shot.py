"""Demonstration sets: the same questions shown with all answers right (truth) or all wrong (lie)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapterprobe.errors import DataError
from adapterprobe.prompts.templates import Template
from adapterprobe.types import Example


@dataclass(frozen=True, slots=True)
class DemoSet:
    """A few examples in a fixed order, as many with a true as with a false positive choice."""

    name: str
    examples: tuple[Example, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(example.group for example in self.examples)

    def turns(self, condition: str, template: Template) -> list[tuple[str, str]]:
        """(turn, answer) pairs: answers are right under `truth` and `neutral`, wrong under `lie`."""
        shown = []
        for example in self.examples:
            says_positive = example.truth != (condition == "lie")
            shown.append((template.turn(example), example.positive if says_positive else example.negative))
        return shown


def draw_demo_sets(
    pool: Sequence[Example], shots: int, count: int, name: str, rng: np.random.Generator
) -> list[DemoSet]:
    """`count` sets of `shots` examples out of `pool`, no group twice in a set, answers balanced.

    Raises:
        DataError: the pool has too few groups with a true or with a false example.
    """
    if shots == 0:
        return [DemoSet("none", ())]
    by_group: dict[str, dict[bool, list[Example]]] = {}
    for example in pool:
        by_group.setdefault(example.group, {}).setdefault(example.truth, []).append(example)
    names = sorted(by_group)
    sets = []
    for index in range(count):
        # Groups with one kind of answer alone go first: the others can still serve either side.
        order = [names[i] for i in rng.permutation(len(names))]
        free = sorted(order, key=lambda group: len(by_group[group]))
        # Half and half; which half gets the odd one alternates over the sets.
        sides = rng.permutation([i < (shots + index % 2) // 2 for i in range(shots)])
        chosen = []
        for side in map(bool, sides):
            group = next((group for group in free if side in by_group[group]), None)
            if group is None:
                has = sum(side in kinds for kinds in by_group.values())
                raise DataError(
                    f"the demonstration pool '{name}' has {len(names)} groups, {has} of them with a {str(side).lower()} "
                    f"example: too few where {shots} shots were asked for; lower elicit.shots or raise data.pool_groups"
                )
            free.remove(group)
            options = by_group[group][side]
            chosen.append(options[int(rng.integers(len(options)))])
        sets.append(DemoSet(f"{name}-{index}", tuple(chosen)))
    return sets
