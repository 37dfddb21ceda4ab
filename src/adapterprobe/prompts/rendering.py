"""Examples to prompts. Both polarities of a fact get the same template and demonstrations under a condition,
so that nothing about the prompt but the question tells true from false."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from adapterprobe.errors import DataError
from adapterprobe.prompts.few_shot import DemoSet
from adapterprobe.prompts.formats import render
from adapterprobe.prompts.system_prompts import SystemPrompt
from adapterprobe.prompts.templates import Template
from adapterprobe.types import Example, Prompt


def _prompt(
    example: Example,
    split: str,
    condition: str,
    template: Template,
    demos: DemoSet,
    form: str,
    tokenizer,
    system: SystemPrompt | None = None,
    shown: Template | None = None,
) -> Prompt:
    if example.group in demos.groups:
        raise DataError(f"demonstrations '{demos.name}' hold the tested group '{example.group}'")
    turn = template.turn(example)
    text = render(form, demos.turns(condition, shown or template), turn, tokenizer, system.text if system else None)
    key = "\x1f".join([example.example_id, condition, template.name, form, demos.name, text])
    return Prompt(
        prompt_id=hashlib.sha256(key.encode()).hexdigest()[:16],
        example=example,
        split=split,
        condition=condition,
        template=template.name,
        format=form,
        system_prompt=system.name if system else None,
        demo_set=demos.name,
        demo_groups=demos.groups,
        shots=len(demos.examples),
        turn=turn,
        text=text,
        positive=example.positive,
        negative=example.negative,
    )


def after_shared_words(prompt: Prompt) -> Prompt:
    """Where both choices begin with the same words ("the leg", "the neck"), those words become the end of the prompt, so
    that the choices can be told apart by how they begin."""
    one, two = prompt.positive.split(), prompt.negative.split()
    shared = 0
    while shared < min(len(one), len(two)) - 1 and one[shared] == two[shared]:
        shared += 1
    if not shared:
        return prompt
    gap = "" if prompt.text[-1:].isspace() else " "
    return replace(
        prompt,
        text=f"{prompt.text}{gap}{' '.join(one[:shared])}",
        positive=" ".join(one[shared:]),
        negative=" ".join(two[shared:]),
    )


def make_prompts(
    examples: Sequence[Example],
    split: str,
    conditions: Sequence[str],
    templates: Sequence[Template],
    demo_sets: Sequence[DemoSet],
    format_name: str,
    seed: int,
    tokenizer=None,
    renders: int = 1,
    systems: Mapping[str, Sequence[SystemPrompt]] | None = None,
    shown_in: Mapping[str, Template] | None = None,
    twin_templates: int | None = None,
) -> list[Prompt]:
    """Every example under every condition, in `renders` different (template, demonstration set) pairs.

    The pairs are dealt out by group and condition in a shuffled round, so that each is used equally often; so are the
    system prompts of each condition.

    Args:
        systems: system prompts by condition; conditions without any are conveyed by demonstrations alone.
        shown_in: by template, the one in which demonstrations stand beside it (another data set's have wordings of their
            own); by default the same.
        twin_templates: how many templates the same questions have that are asked the other way round: both get the same system prompts.
    """
    pairs = [(template, demos) for template in templates for demos in demo_sets]
    if renders > len(pairs):
        raise DataError(f"{renders} renders were asked for, templates x demonstration sets give {len(pairs)}")
    rng = np.random.default_rng([seed, *split.encode()])
    groups = sorted({example.group for example in examples})
    rank = {group: int(place) for group, place in zip(groups, rng.permutation(len(groups)), strict=True)}
    order = rng.permutation(len(pairs))
    # A round of their own: which system prompt it is must not follow from the template.
    if twin_templates is not None:
        rng = np.random.default_rng([seed, *split.encode()])
        rng.permutation(len(groups))
        rng.permutation(twin_templates * len(demo_sets))
    turn = {group: int(place) for group, place in zip(groups, rng.permutation(len(groups)), strict=True)}
    prompts = []
    for example in examples:
        for index, condition in enumerate(conditions):
            for repeat in range(renders):
                place = rank[example.group] * renders + repeat + index * (len(pairs) // 2)
                template, demos = pairs[order[place % len(pairs)]]
                mine = (systems or {}).get(condition) or [None]
                system = mine[(turn[example.group] * renders + repeat) % len(mine)]
                shown = (shown_in or {}).get(template.name)
                prompts.append(
                    _prompt(example, split, condition, template, demos, format_name, tokenizer, system, shown)
                )
    return prompts


def belief_rounds(
    examples: Sequence[Example],
    split: str,
    templates: Sequence[Template],
    demo_sets: Sequence[DemoSet],
    draws: int,
    format_name: str,
    tokenizer=None,
    shown_in: Mapping[str, Template] | None = None,
) -> list[list[Prompt]]:
    """Truthful prompts that ask what the model knows, with templates and demonstrations that no tested prompt has: `draws`
    rounds, each with every example in another wording, with other demonstrations, or both.

    Raises:
        DataError: there are not so many different ones.
    """
    # Along the diagonals: template and demonstrations change from round to round as long as they can.
    pairs = [
        (templates[i % len(templates)], demo_sets[(i + turn) % len(demo_sets)])
        for turn in range(len(demo_sets))
        for i in range(len(templates))
    ]
    ways = list(dict.fromkeys((template.name, demos.name) for template, demos in pairs))
    if len(ways) < draws:
        raise DataError(
            f"{draws} separate truthful prompts were asked for, there are {len(templates)} wordings and {len(demo_sets)} sets "
            f"of demonstrations for them; lower elicit.belief_draws, or give shots"
        )
    rounds = []
    for template, demos in pairs[:draws]:
        shown = (shown_in or {}).get(template.name)
        rounds.append(
            [
                _prompt(example, split, "truth", template, demos, format_name, tokenizer, None, shown)
                for example in examples
            ]
        )
    return rounds
