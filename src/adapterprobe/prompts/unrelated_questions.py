"""Unrelated questions behind a reply or a statement: what a model then answers is all that a black-box detector sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

import yaml

from adapterprobe.prompts.followups import FollowUp
from adapterprobe.prompts.read_prompts import reply_prompt, statement_prompt
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import Prompt


@cache
def unrelated_questions() -> tuple[FollowUp, ...]:
    """The catalogue, in its order."""
    content = yaml.safe_load((resources.files("adapterprobe.prompts") / "unrelated_questions.yaml").read_text("utf-8"))
    return tuple(FollowUp(name, ask, kind, True) for kind, asks in content.items() for name, ask in asks.items())


def questions_behind(
    prompts: Sequence[Prompt],
    questions: Sequence[FollowUp],
    readout: ReadoutConfig,
    tokenizer,
    context_length: int | None,
) -> list[Prompt]:
    """For every question, every prompt of a run with that question instead of its own behind what is read: the questions' prompts stand
    one after the other, each in the prompts' order.

    Args:
        prompts: of a run over replies or statements (see `read_prompts`).
        context_length: see `read_prompts`.
    """
    found = []
    for question in questions:
        for prompt in prompts:
            if prompt.example.conversation is None:
                found.append(statement_prompt(prompt.example, prompt.split, question))
                continue
            asked, _ = reply_prompt(
                prompt.example, prompt.split, readout, prompt.format, tokenizer, question, context_length
            )
            # Nothing is read at the reply's own tokens here, so nobody need look for them.
            found.append(replace(asked, read=None))
    return found
