"""Prompts of one data set outside a run: its questions under the conditions that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapterprobe.data import load_relation
from adapterprobe.data.examples import make_examples
from adapterprobe.elicit import (
    belief_prompts,
    check_format,
    draw_demo_sets,
    make_prompts,
    system_prompts,
    templates_for,
)
from adapterprobe.errors import DataError
from adapterprobe.types import Prompt


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Which prompts of a data set; `seed` alone decides groups, demonstrations and order."""

    name: str
    form: str = "question"
    shots: int = 4
    format: str = "plain"
    seed: int = 0
    system: Sequence[str] | str | None = None
    """System prompts (see `system_prompts`) that convey the conditions, with or without demonstrations."""
    conditions: Sequence[str] | None = None
    """By default truth and lie; neutral where there are neither shots nor system prompts."""
    facts: int | None = None
    """Only so many groups."""


def dataset_prompts(spec: DatasetSpec, tokenizer) -> list[Prompt]:
    """Prompts of a data set; demonstrations come from groups that are not asked.

    Raises:
        DataError: unknown data set, too few groups, or a condition that cannot be conveyed.
        ConfigError: unknown format or system prompt.
    """
    return _prompts(spec, tokenizer, 0)[0]


def prompts_and_belief(spec: DatasetSpec, tokenizer, draws: int) -> tuple[list[Prompt], list[Prompt]]:
    """The same, and truthful prompts that ask what the model knows of these groups: `draws` per example, with
    templates and demonstrations that no other prompt has."""
    return _prompts(spec, tokenizer, draws)


def check_spec(spec: DatasetSpec) -> None:
    """Everything about a specification that can be known without a model.

    Raises:
        AdapterProbeError: see `dataset_prompts`.
    """
    _dealt(spec, with_belief=False)
    check_format(spec.format)


def _dealt(spec: DatasetSpec, with_belief: bool):
    """(relation, demonstration groups, belief demonstration groups, asked groups, conditions, system prompts)."""
    chosen = system_prompts(spec.system)
    conditions = list(spec.conditions or (["truth", "lie"] if spec.shots or chosen else ["neutral"]))
    if not spec.shots and not chosen and conditions != ["neutral"]:
        raise DataError(
            f"conditions {conditions} are conveyed by demonstrations or system prompts, and shots is 0; raise it, give "
            "system prompts, or take neutral"
        )
    relation = load_relation(spec.name)
    order = np.random.default_rng(spec.seed).permutation(len(relation.groups))
    groups = [relation.groups[i] for i in order]
    size = max(8, spec.shots + 2) if spec.shots else 0
    taken = size * (2 if with_belief else 1)
    if len(groups) <= taken + (spec.facts or 1):
        raise DataError(
            f"'{spec.name}' has {len(groups)} groups, too few for {spec.shots} demonstrations and {spec.facts or 'any'} facts"
        )
    return relation, groups[:size], groups[size:taken], groups[taken:], conditions, chosen


def _prompts(spec: DatasetSpec, tokenizer, draws: int) -> tuple[list[Prompt], list[Prompt]]:
    check_format(spec.format)
    relation, shown, believed, asked, conditions, chosen = _dealt(spec, draws > 0)
    pool = make_examples(relation, shown, spec.form, spec.seed)
    demos = draw_demo_sets(pool, spec.shots, 1, "demos", np.random.default_rng(spec.seed))
    examples = make_examples(relation, asked, spec.form, spec.seed)
    if spec.facts is not None:
        first = set(list(dict.fromkeys(e.group for e in examples))[: spec.facts])
        examples = [e for e in examples if e.group in first]
    systems = {c: [s for s in chosen if s.pushes == c] for c in conditions}
    prompts = make_prompts(
        examples,
        "test",
        conditions,
        templates_for(spec.form),
        demos,
        spec.format,
        spec.seed,
        tokenizer,
        systems=systems,
    )
    if not draws:
        return prompts, []
    pool = make_examples(relation, believed, spec.form, spec.seed)
    rng = np.random.default_rng([spec.seed, 1])
    demos = draw_demo_sets(pool, spec.shots, draws if spec.shots else 1, "demos-belief", rng)
    templates = templates_for(spec.form, belief=True)
    return prompts, belief_prompts(examples, "test", templates, demos, draws, spec.format, tokenizer)
