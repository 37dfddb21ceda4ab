"""What the model knows: right in every separate truthful prompt, both polarities.

An answer that is right by luck in one round is asked again in the next; a group that fails a round is not asked
any more (it cannot be known), which gives the same result with fewer forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from adapterprobe.activations import record
from adapterprobe.engine import Engine
from adapterprobe.models import LanguageModel
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.knowledge_prompts import KnowledgePrompts, Rounds
from adapterprobe.types import Prompt

Group = tuple[str, str]
"""(data set, group)."""


def _group(prompt: Prompt) -> Group:
    return prompt.example.dataset, prompt.example.group


@dataclass(frozen=True)
class KnownGroups:
    """Groups that passed every round, those that could be asked in all, and the share that would pass without knowing:
    by guessing, or by always giving the answer that is right most often."""

    groups: frozenset[Group] = frozenset()
    asked: frozenset[Group] = frozenset()
    chance: float = 0.0


@dataclass(frozen=True)
class Knowledge:
    """What a model knows in the tested form, and what it recalls."""

    known: KnownGroups
    recalled: KnownGroups

    def of(self, prompts: list[Prompt]) -> np.ndarray:
        """Whether each prompt's group is known."""
        return np.array([_group(p) in self.known.groups for p in prompts], bool)

    def recalled_of(self, prompts: list[Prompt]) -> pd.api.extensions.ExtensionArray:
        """The same of recall; null where it could not be asked."""
        groups = [_group(p) for p in prompts]
        told = [group in self.recalled.groups if group in self.recalled.asked else None for group in groups]
        return pd.array(told, dtype="boolean")


NOTHING_ASKED = Knowledge(KnownGroups(), KnownGroups())
"""Where nobody asks what the model knows: of replies and statements that are read by themselves."""


def measure_knowledge(lm: LanguageModel, engine: Engine, prompts: KnowledgePrompts) -> Knowledge:
    """Ask all rounds of both forms."""
    return Knowledge(
        _passed(lm, engine, prompts.known, "what the model knows"),
        _passed(lm, engine, prompts.recalled, "what the model recalls"),
    )


def _constant(rounds: Rounds, asked: frozenset[Group]) -> float:
    """Share of groups that one answer, always given, is right for in every round."""
    answers: dict[Group, set[str]] = {}
    for prompt in (prompt for prompts in rounds for prompt in prompts if _group(prompt) in asked):
        right = prompt.positive if prompt.example.truth else prompt.negative
        answers.setdefault(_group(prompt), set()).add(right)
    alone = [next(iter(right)) for right in answers.values() if len(right) == 1]
    return max(map(alone.count, set(alone)), default=0) / max(len(answers), 1)


def _passed(lm: LanguageModel, engine: Engine, rounds: Rounds, what: str) -> KnownGroups:
    counts: dict[Group, int] = {}
    for prompt in (prompt for prompts in rounds for prompt in prompts):
        counts[_group(prompt)] = counts.get(_group(prompt), 0) + 1
    standing = set(counts)
    for prompts in rounds:
        standing &= {_group(p) for p in prompts}
    asked = frozenset(standing)
    for number, prompts in enumerate(rounds, 1):
        mine = [p for p in prompts if _group(p) in standing]
        if not mine:
            break
        encoded = encode(lm.tokenizer, mine, lm.context_length, lm.vocabulary)
        answers = record(engine, encoded, lm.fingerprint, [], f"{what}, round {number} of {len(rounds)}").logprobs
        for prompt, (positive, negative) in zip(mine, answers, strict=True):
            if (positive > negative) != prompt.example.truth:
                standing.discard(_group(prompt))
    guessing = float(np.mean([0.5 ** counts[group] for group in asked])) if asked else 0.0
    chance = max(guessing, _constant(rounds, asked))
    return KnownGroups(frozenset(standing), asked, chance)
