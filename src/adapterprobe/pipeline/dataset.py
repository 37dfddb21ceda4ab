"""Prompts of one data set outside a run: all its questions under the conditions that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.data import load_relation
from adapterprobe.data.examples import make_examples
from adapterprobe.elicit import draw_demo_sets, make_prompts, templates_for
from adapterprobe.errors import DataError
from adapterprobe.types import Prompt


def dataset_prompts(
    name: str,
    form: str,
    shots: int,
    format_name: str,
    seed: int,
    tokenizer,
    conditions: Sequence[str] | None = None,
    facts: int | None = None,
) -> list[Prompt]:
    """Prompts in an order that depends on the seed alone; demonstrations come from groups that are not asked.

    Args:
        shots: demonstrations in a prompt; with 0 the only condition is `neutral`.
        conditions: by default truth and lie, or neutral without shots.
        facts: only so many groups.

    Raises:
        DataError: unknown data set, too few groups, or a condition that these shots cannot convey.
    """
    conditions = list(conditions or (["truth", "lie"] if shots else ["neutral"]))
    if not shots and conditions != ["neutral"]:
        raise DataError(
            f"conditions {conditions} are conveyed by demonstrations, and shots is 0; raise it or take neutral"
        )
    relation = load_relation(name)
    order = np.random.default_rng(seed).permutation(len(relation.groups))
    groups = [relation.groups[i] for i in order]
    pool_size = max(8, shots + 2) if shots else 0
    if len(groups) <= pool_size + (facts or 1):
        raise DataError(
            f"'{name}' has {len(groups)} groups, too few for {shots} demonstrations and {facts or 'any'} facts"
        )
    pool = make_examples(relation, groups[:pool_size], form, seed)
    demos = draw_demo_sets(pool, shots, 1, "demos", np.random.default_rng(seed))
    examples = make_examples(relation, groups[pool_size:], form, seed)
    if facts is not None:
        first = list(dict.fromkeys(e.group for e in examples))[:facts]
        examples = [e for e in examples if e.group in first]
    return make_prompts(examples, "test", conditions, templates_for(form), demos, format_name, seed, tokenizer)
