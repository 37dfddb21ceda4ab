"""Contrast pairs among a run's prompts, and their polarity: for probes that want them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.data.items import topic_of
from adapterprobe.types import NEGATED, Prompt


def pair_numbers(prompts: Sequence[Prompt]) -> np.ndarray:
    """A number that two prompts share which differ in the proposed answer alone, one of them right; -1 without a partner.

    That one of each pair is true is known of how questions are made; which one is not looked at by what uses the numbers.
    """
    forms = {prompt.example.form for prompt in prompts}
    if forms & set(NEGATED) and not forms <= set(NEGATED):
        return _with_negations(prompts)
    waiting: dict[tuple, list[int]] = {}
    numbers, count = np.full(len(prompts), -1), 0
    for row, prompt in enumerate(prompts):
        example = prompt.example
        alike = (
            prompt.split,
            example.dataset,
            example.group,
            example.form,
            prompt.condition,
            prompt.template,
            prompt.format,
            prompt.system_prompt,
            prompt.demo_set,
            # Of replies: two to one context.
            example.conversation.script if example.conversation else None,
        )
        partners = waiting.setdefault((*alike, not example.truth), [])
        if partners:
            numbers[[partners.pop(0), row]] = count
            count += 1
        else:
            waiting.setdefault((*alike, example.truth), []).append(row)
    return numbers


def _with_negations(prompts: Sequence[Prompt]) -> np.ndarray:
    """Of both polarities: a statement and its negation, or a question and the same the other way round, are a pair (Burns et al. 2023, section
    2.2). Of one of them the positive choice is true, whatever it is about."""
    waiting: dict[tuple, list[int]] = {}
    numbers, count = np.full(len(prompts), -1), 0
    for row, prompt in enumerate(prompts):
        example = prompt.example
        denies = example.form in NEGATED
        same = (prompt.split, topic_of(example.dataset), example.group, example.texts.get("answer"))
        same += (prompt.condition, prompt.format, prompt.system_prompt)
        partners = waiting.get((*same, not denies, not example.truth), [])
        if partners:
            numbers[[partners.pop(0), row]] = count
            count += 1
        else:
            waiting.setdefault((*same, denies, example.truth), []).append(row)
    return numbers


def polarities(prompts: Sequence[Prompt]) -> np.ndarray:
    """-1 for questions that ask whether it is not so, and for statements that deny something; 1 for all others."""
    return np.array([-1 if prompt.example.form in NEGATED else 1 for prompt in prompts])
