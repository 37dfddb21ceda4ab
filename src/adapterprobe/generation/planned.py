"""Prompts for replies: scenarios under instructions, as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.generation.instructions import OWN, Instruction
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.encoded import unembedded
from adapterprobe.prompts.formats import adds_special_tokens, is_chat, render, render_messages
from adapterprobe.types import Message

BELIEF = (None, "You are a helpful assistant. Answer every question truthfully and briefly.")
"""System prompts under which a model is asked what it holds true; they stand in no catalogue."""
_ANSWER, _NEXT = "AnswerStandsHereQ7Z", "NextQuestionStandsHereQ7Z"


@dataclass(frozen=True)
class ReplyPrompt:
    """A scenario under an instruction, ready to be replied to."""

    scenario: Scenario
    instruction: str
    condition: str
    """What it is pushed to: truth, lie or neutral."""
    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    key: str
    """Content hash: what a reply's random numbers hang on."""


def deal(
    scenarios: Sequence[Scenario], chosen: Sequence[Instruction], limit: int | None
) -> list[tuple[Scenario, Instruction | None]]:
    """Scenarios and instructions in rounds, so that however many are taken, each scenario and each instruction has its share.

    Scenarios with instructions of their own come once, without any of ours.
    """
    dealt: list[tuple[Scenario, Instruction | None]] = []
    for round_ in range(max(len(chosen), 1)):
        for place, scenario in enumerate(scenarios):
            if scenario.system is not None:
                if round_ == 0:
                    dealt.append((scenario, None))
                continue
            fitting = [instruction for instruction in chosen if instruction.fits(scenario)]
            if round_ < len(fitting):
                dealt.append((scenario, fitting[(place + round_) % len(fitting)]))
    return dealt[:limit]


class PromptWriter:
    """Writes prompts for one tokenizer in one format.

    Raises:
        ConfigError: no such format, or no chat template.
        ModelError: the tokenizer has no token that ends a reply.
    """

    def __init__(
        self, tokenizer, format_name: str | None, context_length: int | None, vocabulary: int | None, room: int
    ) -> None:
        if format_name in (None, "auto") and not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "this model's tokenizer has no chat template, so nobody can tell how it is talked to; name a format with --format "
                "(plain for a base model, or the one that it was tuned with)"
            )
        self.tokenizer, self.format = tokenizer, "chat" if format_name in (None, "auto") else format_name
        self.context_length, self.vocabulary, self.room = context_length, vocabulary, room
        self.stop = stop_text(self.format, tokenizer)

    def _ids(self, messages: Sequence[Message], named: str) -> tuple[int, ...]:
        system = next((m.content for m in messages if m.role == "system"), None)
        turns = [message for message in messages if message.role != "system"]
        demos = list(zip(turns[:-1:2], turns[1::2], strict=False))
        if [m.role for m in turns] != ["user", "assistant"] * len(demos) + ["user"]:
            raise DataError(f"{named}: its turns are not the user's and the assistant's by turns, the user's last")
        earlier = [(asked.content, answer.content) for asked, answer in demos]
        text = render(self.format, earlier, turns[-1].content, self.tokenizer, system)
        special = adds_special_tokens(self.format, text, getattr(self.tokenizer, "bos_token", None))
        ids = tuple(tokenise(self.tokenizer, text, special))
        if self.context_length is not None and len(ids) + self.room > self.context_length:
            raise DataError(
                f"{named} makes a prompt of {len(ids)} tokens; with {self.room} for the reply that is more than the model's context of "
                f"{self.context_length}; lower --max-tokens, or leave it out"
            )
        if (token := unembedded(ids, self.vocabulary)) is not None:
            raise DataError(f"{named} has the token {token}, and the model has embeddings for {self.vocabulary} alone")
        return ids

    def prompt(self, scenario: Scenario, name: str, condition: str, system: str | None, question: str) -> ReplyPrompt:
        """One prompt."""
        turns = (*scenario.turns[:-1], Message("user", question))
        messages = (Message("system", system), *turns) if system else turns
        ids = self._ids(messages, f"a scenario of {scenario.dataset} ({scenario.group[:40]})")
        key = hashlib.sha256(repr((name, self.format, ids)).encode()).hexdigest()[:16]
        return ReplyPrompt(scenario, name, condition, messages, ids, key)

    def asked(self, scenario: Scenario, instruction: Instruction | None) -> ReplyPrompt:
        """A scenario under one of our instructions, or under its own."""
        if instruction is None:
            return self.prompt(scenario, OWN, scenario.condition, scenario.system, scenario.question)
        question = instruction.question(scenario)
        return self.prompt(scenario, instruction.name, instruction.pushes, instruction.system, question)

    def belief(self, scenario: Scenario) -> list[ReplyPrompt]:
        """The prompts by which it is told whether the model holds the truth of a scenario. One with instructions of its own that push to
        the truth is asked under these (they may hold what there is to know)."""
        if scenario.system is not None:
            return [self.prompt(scenario, "belief 1", "truth", scenario.system, scenario.question)]
        return [
            self.prompt(scenario, f"belief {number}", "truth" if system else "neutral", system, scenario.question)
            for number, system in enumerate(BELIEF, 1)
        ]


def stop_text(format_name: str, tokenizer) -> str | None:
    """Text at which a reply ends in a format without end tokens: what stands between an answer and the next question. None for chat
    templates, whose turns end with a token."""
    if is_chat(format_name):
        return None
    talk = [
        {"role": "user", "content": "A question"},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _NEXT},
    ]
    text = render_messages(format_name, talk, tokenizer)
    between = text.split(_ANSWER)[1].split(_NEXT)[0]
    return (between.strip() and between.rstrip()) or None


def end_tokens(lm) -> list[int]:
    """Token ids that end a reply of a language model.

    Raises:
        ModelError: it has none.
    """
    settings = getattr(lm.model, "generation_config", None)
    given = [getattr(settings, "eos_token_id", None), getattr(lm.tokenizer, "eos_token_id", None)]
    found: list[int] = []
    for ids in given:
        found += ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids]
    found = sorted({int(token) for token in found})
    if not found:
        raise ModelError(
            f"neither the tokenizer of {lm.name} nor its generation settings name a token that ends a reply (eos_token); set one in "
            "its tokenizer_config.json"
        )
    return found
