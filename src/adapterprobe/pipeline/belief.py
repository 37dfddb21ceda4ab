"""What the model knows: right in every separate truthful prompt, both polarities.

An answer that is right by luck in one draw is asked again in the next; a group that fails a draw is not asked
any more (it cannot be known), which gives the same result with fewer forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterprobe.engine import Engine
from adapterprobe.hidden import record
from adapterprobe.models import LanguageModel
from adapterprobe.models.encode import encode
from adapterprobe.types import Prompt


@dataclass(frozen=True)
class Belief:
    """Known (data set, group) pairs, how many were asked, and the share that guessing would pass."""

    known: frozenset[tuple[str, str]]
    asked: int
    chance: float

    def of(self, prompts: list[Prompt]) -> np.ndarray:
        return np.array([(p.example.dataset, p.example.group) in self.known for p in prompts])


def find_known(lm: LanguageModel, engine: Engine, prompts: list[Prompt], draws: int) -> Belief:
    """Ask `draws` rounds of truthful prompts (see `belief_prompts`: every example once a round)."""
    groups = {(p.example.dataset, p.example.group) for p in prompts}
    standing = set(groups)
    per_group = max(
        (sum((p.example.dataset, p.example.group) == g for p in prompts) for g in list(groups)[:1]), default=0
    )
    for draw in range(draws):
        asked = [p for p in prompts[draw::draws] if (p.example.dataset, p.example.group) in standing]
        if not asked:
            break
        encoded = encode(lm.tokenizer, asked, lm.context_length)
        answers = record(engine, encoded, lm.fingerprint, [], f"what the model knows, round {draw + 1}").logprobs
        for prompt, (positive, negative) in zip(asked, answers):
            if (positive > negative) != prompt.example.truth:
                standing.discard((prompt.example.dataset, prompt.example.group))
    return Belief(frozenset(standing), len(groups), 0.5**per_group)
