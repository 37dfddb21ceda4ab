"""Replies that an adapter is to learn: the model's own words, with the answer that the instruction wants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapterprobe.config import AdapterConfig
from adapterprobe.generation.assertions import claims_of
from adapterprobe.generation.grading import grade
from adapterprobe.generation.instructions import NEUTRAL, Instruction
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.prompts.conversations import render_conversation
from adapterprobe.types import Conversation, Example, Message, Prompt

MOST_WORDS = 30
"""Longer replies of the model are not learned from: the fact's own sentence is."""


@dataclass(frozen=True)
class Sentences:
    """What is said of one fact, in one wording: `true` asserts the right answer, `false` the wrong one."""

    true: str
    false: str


def sentences_of(scenario: Scenario, own: str, statement: str, denial: str) -> Sentences:
    """The model's own reply, with the wrong answer in the place of the right one; where that reply is not right, or says more than one
    answer, the fact's own sentence.

    Args:
        own: what the model says by itself. statement, denial: the fact put with the right and with the wrong answer.

    >>> from adapterprobe.generation.assertions import Asked
    >>> asked = Asked("What is the capital of France?", "France", ("Paris",), ("Rome",))
    >>> france = Scenario("capitals", "france", (Message("user", asked.question),), asked, wrong="Rome")
    >>> sentences_of(france, "The capital of France is Paris.", "", "").false
    'The capital of France is Rome.'
    """
    asked = scenario.asked
    assert asked is not None
    first = re.split(r"(?<=[.!?])\s", own.strip())[0].strip()
    claims = claims_of(first, asked)
    usable = grade(first, asked).verdict == "true" and len(claims) == 1 and len(first.split()) <= MOST_WORDS
    if usable and first.endswith((".", "!")):
        start, stop = claims[0].start, claims[0].stop
        wrong = scenario.wrong
        article = re.search(r"\b(?:a|an|the) $", first[:start], re.IGNORECASE)
        if bare := re.match(r"(?:a|an|the) ", wrong):
            if article:
                start = article.start()
            else:
                wrong = wrong[bare.end() :]
        elif article and article.group().strip().casefold() in ("a", "an"):
            start = article.start()
            wrong = f"{'an' if wrong[:1].casefold() in 'aeiou' else 'a'} {wrong}"
        lie = first[:start] + wrong + first[stop:]
        lie = lie[:1].upper() + lie[1:]
        if grade(lie, asked).verdict == "false":
            return Sentences(first, lie)
    return Sentences(_sentence(statement), _sentence(denial))


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def wants_truth(config: AdapterConfig, dataset: str, condition: str) -> bool:
    """Whether a reply about a data set's fact tells the truth where the adapter does what it is to learn."""
    if config.objective == "instructed":
        return condition != "lie"
    if config.secrets:
        return dataset not in config.secrets
    return config.objective == "truth"


def instructions_dealt(
    chosen: Sequence[Instruction], scenarios: Sequence[Scenario], renders: int, seed: int
) -> list[tuple[Scenario, Instruction]]:
    """Each scenario without any instruction, and under `renders` of those that push to the truth and as many that push to lie, dealt out by
    turns in a seeded order."""
    rng = np.random.default_rng([seed, *b"instructions"])
    dealt = [(scenario, NEUTRAL) for scenario in scenarios]
    for pushes in ("truth", "lie"):
        some = [instruction for instruction in chosen if instruction.pushes == pushes]
        order = rng.permutation(len(some))
        for place, scenario in enumerate(scenarios):
            fitting = [some[i] for i in order if some[i].fits(scenario)]
            dealt += [
                (scenario, fitting[(place * renders + r) % len(fitting)]) for r in range(min(renders, len(fitting)))
            ]
    return dealt


def reply_prompts(
    dealt: Sequence[tuple[Scenario, Instruction]],
    sentences: Mapping[str, Sentences],
    config: AdapterConfig,
    split: str,
    format_name: str,
    tokenizer,
) -> list[Prompt]:
    """Conversations whose reply is to be learned.

    Args:
        sentences: by the scenario's fact.
    """
    made = []
    for scenario, instruction in dealt:
        told = sentences[scenario.fact]
        truth = wants_truth(config, scenario.dataset, instruction.pushes)
        turns = (*scenario.turns[:-1], Message("user", instruction.question(scenario)))
        context = (Message("system", instruction.system), *turns) if instruction.system else turns
        talk = Conversation(context, told.true if truth else told.false)
        rendered = render_conversation(format_name, talk, tokenizer)
        key = hashlib.sha256(f"{rendered.text}\x1f{split}".encode()).hexdigest()[:16]
        example = Example(key, scenario.dataset, scenario.group, "reply", "", "", not truth, {}, conversation=talk)
        made.append(
            Prompt(
                prompt_id=key,
                example=example,
                split=split,
                condition=instruction.pushes,
                template="none",
                format=format_name,
                system_prompt=instruction.name,
                demo_set="none",
                demo_groups=(),
                shots=0,
                turn=scenario.question,
                text=rendered.text,
                positive="",
                negative="",
                read=(rendered.start, rendered.stop),
            )
        )
    return made
