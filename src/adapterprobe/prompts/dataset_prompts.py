"""Prompts of one data set outside a run: its questions under the conditions that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from adapterprobe.config import ReadConfig
from adapterprobe.data import ExampleSource, load_data
from adapterprobe.data.splits import shuffled
from adapterprobe.errors import DataError
from adapterprobe.prompts import (
    SystemPrompt,
    check_format,
    draw_demo_sets,
    make_prompts,
    system_prompts,
    systems_for,
    templates_for,
)
from adapterprobe.prompts.knowledge_prompts import KnowledgePromptConfig, KnowledgePrompts, knowledge_prompts
from adapterprobe.types import Example, Prompt


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Which prompts of a data set; `seed` alone decides groups, demonstrations and order."""

    name: str
    """A name, a file, or `hub:NAME` (see `load_data`)."""
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
    templates: Sequence[str] | None = None
    """Wordings by name, or patterns of one's own; by default all of the form."""
    read: ReadConfig = field(default_factory=ReadConfig)
    every_row: bool = False
    """Whether repeats and what one class has more than the other are asked too (see `load_data`)."""


@dataclass(frozen=True)
class _Dealt:
    dataset: ExampleSource
    shown: list[str]
    """Groups of demonstrations."""
    believed: list[str]
    """Groups of the demonstrations of belief prompts."""
    asked: list[str]
    systems: dict[str, list[SystemPrompt]]
    """By condition."""


def dataset_prompts(spec: DatasetSpec, tokenizer) -> list[Prompt]:
    """Prompts of a data set; demonstrations come from groups that are not asked.

    Raises:
        DataError: unknown data set, too few groups, or a condition that cannot be conveyed.
        ConfigError: unknown format, template or system prompt.
    """
    check_format(spec.format)
    return _tested(spec, _deal(spec, with_belief=False), tokenizer)


def prompts_and_belief(spec: DatasetSpec, tokenizer, draws: int) -> tuple[list[Prompt], KnowledgePrompts]:
    """The same, and truthful prompts that ask what the model knows of these groups, with templates and demonstrations
    that no other prompt has."""
    check_format(spec.format)
    dealt = _deal(spec, with_belief=True)
    prompts = _tested(spec, dealt, tokenizer)
    examples = list({prompt.example.example_id: prompt.example for prompt in prompts}.values())
    prompt_config = KnowledgePromptConfig(spec.shots, draws, spec.format, spec.seed, "any", tokenizer)
    return prompts, knowledge_prompts(dealt.dataset, dealt.dataset, dealt.believed, examples, "test", prompt_config)


def check_spec(spec: DatasetSpec) -> None:
    """Everything about a specification that can be known without a model.

    Raises:
        AdapterProbeError: see `dataset_prompts`.
    """
    dealt = _deal(spec, with_belief=False)
    templates_for(dealt.dataset, spec.form, spec.templates)
    check_format(spec.format)


def shown_and_asked(spec: DatasetSpec) -> tuple[list[Example], list[Example]]:
    """Examples of the demonstrations, and of all that may be asked beside them.

    Raises:
        DataError: see `dataset_prompts`.
    """
    dealt = _deal(replace(spec, facts=None), with_belief=False)
    made = [dealt.dataset.examples(groups, spec.form, spec.seed) for groups in (dealt.shown, dealt.asked)]
    return made[0], made[1]


def _deal(spec: DatasetSpec, with_belief: bool) -> _Dealt:
    chosen = system_prompts(spec.system)
    conditions = list(spec.conditions or (["truth", "lie"] if spec.shots or chosen else ["neutral"]))
    pushing = [condition for condition in conditions if condition != "neutral"]
    if not spec.shots and not chosen and pushing:
        raise DataError(
            f"conditions {conditions} are conveyed by demonstrations or system prompts, and shots is 0; raise it, give "
            "system prompts, or take neutral"
        )
    if not spec.shots:
        for condition in pushing:
            systems_for(chosen, condition, judged=True)
    dataset = load_data(spec.name, spec.read, spec.seed, spec.every_row)
    groups = shuffled(dataset.groups, spec.seed, dataset.label_sides())
    size = _demonstrators(dataset, groups, spec)
    taken = size * (2 if with_belief else 1)
    needed = taken + (spec.facts or 1)
    if len(groups) < needed:
        raise DataError(
            f"'{dataset.name}' has {len(groups)} groups, too few: {taken} are set aside for {spec.shots} demonstrations, and "
            f"{spec.facts or 1} shall be asked, which takes {needed}; lower --shots or how many are asked, or use more data"
        )
    systems = {c: [s for s in chosen if s.pushes == c] for c in conditions}
    return _Dealt(dataset, groups[:size], groups[size:taken], groups[taken:], systems)


def _demonstrators(dataset: ExampleSource, groups: list[str], spec: DatasetSpec) -> int:
    """How many groups it takes to demonstrate: more than there are shots where objects cannot be balanced in a few."""
    size = max(8, spec.shots + 2) if spec.shots else 0
    while size and size <= len(groups) // 4:
        try:
            draw_demo_sets(
                dataset.examples(groups[:size], spec.form, spec.seed), spec.shots, 2, "demos", np.random.default_rng(0)
            )
        except DataError:
            size += 4
        else:
            break
    return size


def _tested(spec: DatasetSpec, dealt: _Dealt, tokenizer) -> list[Prompt]:
    dataset = dealt.dataset
    pool = dataset.examples(dealt.shown, spec.form, spec.seed)
    demos = draw_demo_sets(pool, spec.shots, 1, "demos", np.random.default_rng(spec.seed))
    asked = dealt.asked
    examples = dataset.examples(asked, spec.form, spec.seed)
    if spec.facts is not None:
        # In the order that was dealt; balancing may have left groups without an example.
        has = {example.group for example in examples}
        first = set([group for group in asked if group in has][: spec.facts])
        examples = [example for example in examples if example.group in first]
    return make_prompts(
        examples,
        "test",
        list(dealt.systems),
        templates_for(dataset, spec.form, spec.templates),
        demos,
        spec.format,
        spec.seed,
        tokenizer,
        systems=dealt.systems,
    )
