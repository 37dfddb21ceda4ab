"""Examples to prompts. Both polarities of a fact get the same template and demonstrations under a condition,
so that nothing about the prompt but the question tells true from false."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from adapterprobe.elicit.demos import DemoSet
from adapterprobe.elicit.formats import render
from adapterprobe.elicit.templates import Template
from adapterprobe.errors import DataError
from adapterprobe.types import Example, Prompt


def _prompt(
    example: Example, split: str, condition: str, template: Template, demos: DemoSet, form: str, tokenizer
) -> Prompt:
    if example.group in demos.groups:
        raise DataError(f"demonstrations '{demos.name}' hold the tested group '{example.group}'")
    turn = template.turn(example)
    text = render(form, demos.turns(condition, template), turn, tokenizer)
    if turn not in text:
        raise DataError(f"the format '{form}' does not place the question of example {example.example_id}")
    key = "\x1f".join([example.example_id, condition, template.name, form, demos.name, text])
    return Prompt(
        prompt_id=hashlib.sha256(key.encode()).hexdigest()[:16],
        example=example,
        split=split,
        condition=condition,
        template=template.name,
        format=form,
        system_prompt=None,
        demo_set=demos.name,
        demo_groups=demos.groups,
        shots=len(demos.examples),
        text=text,
        positive=example.positive,
        negative=example.negative,
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
) -> list[Prompt]:
    """Every example under every condition, in `renders` different (template, demonstration set) pairs.

    The pairs are dealt out by group and condition in a shuffled round, so that each is used equally often.
    """
    pairs = [(template, demos) for template in templates for demos in demo_sets]
    if renders > len(pairs):
        raise DataError(f"{renders} renders were asked for, templates x demonstration sets give {len(pairs)}")
    rng = np.random.default_rng([seed, *split.encode()])
    groups = sorted({example.group for example in examples})
    rank = {group: int(place) for group, place in zip(groups, rng.permutation(len(groups)))}
    order = rng.permutation(len(pairs))
    prompts = []
    for example in examples:
        for index, condition in enumerate(conditions):
            for repeat in range(renders):
                place = rank[example.group] * renders + repeat + index * (len(pairs) // 2)
                template, demos = pairs[order[place % len(pairs)]]
                prompts.append(_prompt(example, split, condition, template, demos, format_name, tokenizer))
    return prompts


def belief_prompts(
    examples: Sequence[Example],
    split: str,
    templates: Sequence[Template],
    demo_sets: Sequence[DemoSet],
    draws: int,
    format_name: str,
    tokenizer=None,
) -> list[Prompt]:
    """Truthful prompts that ask what the model knows: `draws` per example, with templates and demonstrations
    that no tested prompt has."""
    return [
        _prompt(
            example,
            split,
            "truth",
            templates[draw % len(templates)],
            demo_sets[draw % len(demo_sets)],
            format_name,
            tokenizer,
        )
        for example in examples
        for draw in range(draws)
    ]
