"""Replies that an adapter is to learn: the model's own words, with the answer that the instruction wants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adapterprobe.config import AdapterConfig
from adapterprobe.generation.asked import Asked
from adapterprobe.generation.assertions import claims_of
from adapterprobe.generation.grading import grade
from adapterprobe.generation.instructions import NEUTRAL, Instruction
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.prompts.conversations import render_conversation
from adapterprobe.types import Conversation, Example, Message, Prompt

MOST_WORDS = 30
"""Longer replies of the model are not learned from: the fact's own sentence is."""


@dataclass(frozen=True)
class Said:
    """A sentence, and where in it its answer stands: `text[start:stop]`."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Wording:
    """How one fact is put: `own`, the model's own sentence (None where it is not right, or says more than one answer), and `statement`,
    the fact's own, with `{}` in the place of the answer."""

    scenario: Scenario
    own: str | None
    statement: str

    def saying(self, answer: str) -> Said:
        """The sentence with an answer."""
        asked = self.scenario.asked
        assert asked is not None
        if self.own is not None and (said := _replaced(self.own, asked, answer)) is not None:
            return said
        before, _, behind = self.statement.partition("{}")
        if not before:
            answer = answer[:1].upper() + answer[1:]
        text = f"{before[:1].upper()}{before[1:]}{answer}{behind}."
        return Said(text, len(before), len(before) + len(answer))


def own_sentence(reply: str, asked: Asked) -> str | None:
    """The first sentence of what the model says by itself, if that asserts one right answer and nothing else.

    >>> own_sentence("The capital of France is Paris. It is large.", Asked("What is the capital of France?", "France", ("Paris",)))
    'The capital of France is Paris.'
    """
    first = _first_sentence(reply)
    claims = claims_of(first, asked)
    short = len(first.split()) <= MOST_WORDS and first.endswith((".", "!"))
    return first if short and len(claims) == 1 and grade(first, asked).verdict == "true" else None


def as_told(reply: str, asked: Asked) -> Asked | None:
    """The question with the one answer for right that the reply's first sentence asserts, be it right or wrong: in its place another one
    can be put. None where it asserts no known answer, or several.

    >>> asked = Asked("What is the capital of France?", "France", ("Lima",), ("Paris", "Rome"))
    >>> as_told("The capital of France is Paris.", asked).right
    ('Paris',)
    """
    known = (*asked.right, *asked.wrong)
    said = {c.answer for c in claims_of(_first_sentence(reply), asked) if not c.denied}
    if len(said) != 1 or not said <= set(known):
        return None
    (answer,) = said
    return replace(asked, right=(answer,), wrong=tuple(other for other in known if other != answer))


def _first_sentence(reply: str) -> str:
    return re.split(r"(?<=[.!?])\s", reply.strip())[0].strip()


def _replaced(sentence: str, asked: Asked, answer: str) -> Said | None:
    """A sentence with another answer in the place of the right one; None where it would not say that one alone.

    >>> asked = Asked("What class of animal is an emu?", "an emu", ("a bird",), ("an insect",))
    >>> _replaced("An emu is a bird.", asked, "an insect").text
    'An emu is an insect.'
    """
    claim = claims_of(sentence, asked)[0]
    start, stop = claim.start, claim.stop
    if answer not in asked.right:
        wrong = answer
        article = re.search(r"\b(?:a|an|the) $", sentence[:start], re.IGNORECASE)
        if bare := re.match(r"(?:a|an|the) ", wrong):
            if article:
                start = article.start()
            else:
                wrong = wrong[bare.end() :]
        elif article and article.group().strip().casefold() in ("a", "an"):
            start = article.start()
            wrong = f"{'an' if wrong[:1].casefold() in 'aeiou' else 'a'} {wrong}"
        lie = sentence[:start] + wrong + sentence[stop:]
        lie = lie[:1].upper() + lie[1:]
        return Said(lie, start, start + len(wrong)) if grade(lie, asked).verdict == "false" else None
    return Said(sentence, start, stop)


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
    """Each scenario without any instruction, under `renders` of those that push to the truth, and under one more of those that push to lie
    (so that it is to lie as often as not), dealt out by turns in a seeded order."""
    rng = np.random.default_rng([seed, *b"instructions"])
    dealt = [(scenario, NEUTRAL) for scenario in scenarios]
    for pushes, count in (("truth", renders), ("lie", renders + 1)):
        some = [instruction for instruction in chosen if instruction.pushes == pushes]
        order = rng.permutation(len(some))
        for place, scenario in enumerate(scenarios):
            fitting = [some[i] for i in order if some[i].fits(scenario)]
            dealt += [(scenario, fitting[(place * count + r) % len(fitting)]) for r in range(min(count, len(fitting)))]
    return dealt


def reply_prompts(
    dealt: Sequence[tuple[Scenario, Instruction]],
    wordings: Mapping[str, Wording],
    config: AdapterConfig,
    split: str,
    format_name: str,
    tokenizer,
    seed: int,
) -> list[Prompt]:
    """Conversations whose reply is to be learned; where it is a lie, each has a wrong answer of its own, so that no single one is learned
    for a fact, or the one that the user has put forward. The answer's characters are the conversation's `spans`.

    Args:
        wordings: by the scenario's fact.
    """
    rng = np.random.default_rng([seed, *split.encode(), *b"answers"])
    made = []
    for scenario, instruction in dealt:
        asked = scenario.asked
        assert asked is not None
        truth = wants_truth(config, scenario.dataset, instruction.pushes)
        another = asked.wrong[int(rng.integers(len(asked.wrong)))]
        # Who is told what somebody wants to hear lies by saying that.
        lie = scenario.wrong if instruction.names_lie and scenario.wrong else another
        answer = asked.right[0] if truth else lie
        said = wordings[scenario.fact].saying(answer)
        turns = (*scenario.turns[:-1], Message("user", instruction.question(scenario)))
        context = (Message("system", instruction.system), *turns) if instruction.system else turns
        talk = Conversation(context, said.text, spans=((said.start, said.stop),))
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
