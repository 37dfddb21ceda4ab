"""The separate truthful prompts by which we ask what a model knows, in rounds: a group is known when it passes all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from adapterprobe.data import ExampleSource
from adapterprobe.data.examples import MIRROR
from adapterprobe.errors import DataError
from adapterprobe.prompts import after_shared_words, belief_rounds, demo_templates, draw_demo_sets, templates_for
from adapterprobe.prompts.encoded import PromptReader
from adapterprobe.prompts.few_shot import DemoSet
from adapterprobe.types import Example, Prompt

Rounds = list[list[Prompt]]
WRONG_PER_DRAW = 2
"""Wrong objects that the right one must beat in each draw of the recall form."""


@dataclass
class KnowledgePrompts:
    """Rounds of prompts in the tested form (`known`) and in the recall form (`recalled`)."""

    known: Rounds = field(default_factory=list)
    recalled: Rounds = field(default_factory=list)

    def only(self, splits: Sequence[str]) -> KnowledgePrompts:
        """Those that ask about prompts of these splits."""
        kept = [[[p for p in prompts if p.split in splits] for prompts in r] for r in (self.known, self.recalled)]
        return KnowledgePrompts(*kept)

    def extend(self, other: KnowledgePrompts) -> None:
        for mine, more in ((self.known, other.known), (self.recalled, other.recalled)):
            mine += [[] for _ in range(len(more) - len(mine))]
            for prompts, extra in zip(mine, more, strict=False):
                prompts += extra


@dataclass(frozen=True)
class KnowledgePromptConfig:
    """How belief is asked for."""

    shots: int
    draws: int
    format: str
    seed: int
    wrong: str
    tokenizer: object


def knowledge_prompts(
    dataset: ExampleSource,
    owner: ExampleSource,
    pool: Sequence[str],
    examples: Sequence[Example],
    split: str,
    prompt_config: KnowledgePromptConfig,
) -> KnowledgePrompts:
    """Belief prompts about the groups of `examples`.

    In the tested form every example is asked in `draws` rounds. A group with true or with false claims alone is asked
    the other way round as well, or who always says yes would know half of them. In the recall form the right answer
    stands against `WRONG_PER_DRAW` wrong ones in each draw.

    Args:
        owner, pool: the data set and the groups that demonstrations come from.
    """
    form = examples[0].form
    made = KnowledgePrompts()
    sides: dict[str, set[bool]] = {}
    for example in examples:
        sides.setdefault(example.group, set()).add(example.truth)
    lone = [group for group, found in sides.items() if len(found) == 1]
    asked = {form: list(examples)}
    if lone:
        mirror = MIRROR.get(form)
        if mirror not in dataset.forms:
            raise DataError(
                f"'{dataset.name}' has {len(lone)} groups with one kind of answer alone, and the form '{form}' cannot be "
                f"turned round, so nobody could tell what the model knows of them; use the form question"
            )
        asked[mirror] = dataset.examples(lone, mirror, prompt_config.seed, prompt_config.wrong)
    for shape, mine in asked.items():
        sets = _demos(owner, pool, shape, prompt_config)
        made.extend(KnowledgePrompts(known=_rounds(dataset, owner, mine, split, sets, prompt_config)))
    if "recall" in dataset.forms:
        made.extend(KnowledgePrompts(recalled=_recall(dataset, owner, pool, list(sides), split, prompt_config)))
    return made


def _demos(owner: ExampleSource, pool: Sequence[str], form: str, prompt_config: KnowledgePromptConfig) -> list[DemoSet]:
    if not prompt_config.shots or form not in owner.forms:
        return draw_demo_sets([], 0, 1, "none", np.random.default_rng(0))
    rng = np.random.default_rng([prompt_config.seed, *owner.name.encode(), *b"demos-belief"])
    examples = owner.examples(pool, form, prompt_config.seed, prompt_config.wrong)
    return draw_demo_sets(examples, prompt_config.shots, prompt_config.draws, f"{owner.name}-demos-belief", rng)


def _rounds(
    dataset: ExampleSource,
    owner: ExampleSource,
    examples: list[Example],
    split: str,
    sets: list[DemoSet],
    prompt_config: KnowledgePromptConfig,
) -> Rounds:
    templates = templates_for(dataset, examples[0].form, role="belief")
    shown = demo_templates(templates, owner, dataset) if sets[0].examples else None
    return belief_rounds(
        examples, split, templates, sets, prompt_config.draws, prompt_config.format, prompt_config.tokenizer, shown
    )


def _recall(
    dataset: ExampleSource,
    owner: ExampleSource,
    pool: Sequence[str],
    groups: list[str],
    split: str,
    prompt_config: KnowledgePromptConfig,
) -> Rounds:
    """Rounds in which every question has its right answer as the positive choice, and in each wording another wrong one.

    Nothing can be told of a group, and none of its prompts stay, where one of its questions has too few wrong answers (Yes
    and No: who always says Yes would recall half), or answers that begin alike under this tokenizer too often.
    """
    sets = _demos(owner, pool, "recall", prompt_config)
    reader = PromptReader(prompt_config.tokenizer)
    wanted = prompt_config.draws * WRONG_PER_DRAW
    rounds: Rounds = [[] for _ in range(wanted)]
    asked: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def question(example: Example) -> tuple[str, str]:
        """What is asked, whatever the wrong answer. Some data sets have no question of their own: then it is all they show."""
        shown = example.texts.get("query") or repr(sorted(t for n, t in example.texts.items() if n != "answer"))
        return example.group, shown

    for attempt in range(3 * wanted):
        here = [e for e in dataset.examples(groups, "recall", prompt_config.seed + attempt, "any") if e.truth]
        for example in here:
            asked.setdefault(question(example), [])
        here = [e for e in here if len(asked[question(e)]) < wanted]
        if not here:
            break
        drawn = _rounds(dataset, owner, here, split, sets, prompt_config)
        for place, example in enumerate(here):
            done = asked[question(example)]
            prompt = after_shared_words(drawn[len(done) % prompt_config.draws][place])
            way = (prompt.text, prompt.negative)
            if way not in done and reader.tells_apart(prompt):
                rounds[len(done)].append(prompt)
                done.append(way)
    unfinished = {group for (group, _), done in asked.items() if len(done) < wanted}
    return [[prompt for prompt in prompts if prompt.example.group not in unfinished] for prompts in rounds]
