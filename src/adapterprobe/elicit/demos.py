"""Demonstration sets: the same questions shown with all answers right (truth) or all wrong (lie)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapterprobe.elicit.templates import Template
from adapterprobe.errors import DataError
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
        DataError: the pool has fewer groups than shots.
    """
    if shots == 0:
        return [DemoSet("none", ())]
    by_group: dict[str, dict[bool, list[Example]]] = {}
    for example in pool:
        by_group.setdefault(example.group, {}).setdefault(example.truth, []).append(example)
    usable = sorted(group for group, sides in by_group.items() if len(sides) == 2)
    if len(usable) < shots:
        raise DataError(
            f"the demonstration pool '{name}' has {len(usable)} usable groups, {shots} shots were asked for; "
            f"lower elicit.shots or raise elicit.pool_groups"
        )
    sets = []
    for index in range(count):
        groups = [usable[i] for i in rng.choice(len(usable), shots, replace=False)]
        # Half and half; which half gets the odd one alternates over the sets.
        sides = rng.permutation([i < (shots + index % 2) // 2 for i in range(shots)])
        chosen = []
        for group, side in zip(groups, sides):
            options = by_group[group][bool(side)]
            chosen.append(options[int(rng.integers(len(options)))])
        sets.append(DemoSet(f"{name}-{index}", tuple(chosen)))
    return sets
