"""The second way to ask what a model holds true: does it prefer the right answer to wrong ones where it is to fill it in?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from adapterprobe.engine import Engine
from adapterprobe.engine.outcomes import answer_logprobs
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.models import LanguageModel
from adapterprobe.prompts.encoded import PromptReader, encode
from adapterprobe.prompts.formats import render
from adapterprobe.prompts.rendering import after_shared_words
from adapterprobe.types import Example, Prompt

FORMAT = "plain"
RIVALS = 5
"""Wrong answers that the right one must beat, at most."""


def recalled_facts(lm: LanguageModel, engine: Engine, scenarios: Sequence[Scenario], seed: int) -> dict[str, bool]:
    """By fact, whether the model as it now is finds the right answer likelier than each of some wrong ones, as the first words behind the
    question in the plain format. Only facts with answers in words that begin differently can be asked."""
    prompts, owners = [], []
    reader = PromptReader(lm.tokenizer)
    for scenario in scenarios:
        for prompt in _pairs(scenario, seed):
            if reader.tells_apart(prompt):
                prompts.append(prompt)
                owners.append(scenario.fact)
    if not prompts:
        return {}
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    won = answer_logprobs(engine, encoded)
    found: dict[str, bool] = {}
    for fact, better in zip(owners, (won[:, 0] > won[:, 1]).tolist(), strict=True):
        found[fact] = found.get(fact, True) and better
    return found


def _pairs(scenario: Scenario, seed: int) -> list[Prompt]:
    asked = scenario.asked
    if asked is None or not asked.wrong or len(scenario.turns) > 1:
        return []
    rng = np.random.default_rng([seed, *scenario.fact.encode()])
    rivals = [asked.wrong[i] for i in rng.permutation(len(asked.wrong))[:RIVALS]]
    text = render(FORMAT, [], scenario.question, None, scenario.system)
    return [_prompt(scenario, asked.right[0], rival, text) for rival in rivals]


def _prompt(scenario: Scenario, right: str, wrong: str, text: str) -> Prompt:
    key = hashlib.sha256(f"{text}\x1f{right}\x1f{wrong}".encode()).hexdigest()[:16]
    example = Example(key, scenario.dataset, scenario.group, "recall", right, wrong, True, {})
    prompt = Prompt(
        prompt_id=key,
        example=example,
        split="belief",
        condition="truth",
        template="recall",
        format=FORMAT,
        system_prompt=None,
        demo_set="none",
        demo_groups=(),
        shots=0,
        turn=scenario.question,
        text=text,
        positive=right,
        negative=wrong,
    )
    return after_shared_words(prompt)
