"""From questions to the prompts of a run: templates by split, demonstrations drawn."""

from __future__ import annotations

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.data import ExampleSource
from adapterprobe.prompts import demo_templates, draw_demo_sets, make_prompts, system_prompts, systems_for
from adapterprobe.prompts.few_shot import DemoSet
from adapterprobe.prompts.knowledge_prompts import KnowledgePromptConfig, KnowledgePrompts, knowledge_prompts
from adapterprobe.prompts.questions import Questions, tested_templates
from adapterprobe.prompts.reading import prompts_by_split
from adapterprobe.types import Prompt

ROLES = {
    "adapter-train": "train",
    "probe-train": "train",
    "select": "tune",
    "calibrate": "tune",
    "test": "judge",
    "ood": "judge",
}
"""The templates of each split. Whatever is fitted is selected and calibrated on other wordings, and judged on still others."""
JUDGED = ("test", "ood")
"""Splits with system prompts and demonstrations of their own."""


def prepare_prompts(
    config: RunConfig, questions: Questions, tokenizer, context_length: int | None = None
) -> tuple[list[Prompt], KnowledgePrompts]:
    """(tested prompts of all splits, belief prompts of those that are reported, and of those that an adapter is trained and
    stopped on where it is trained on what the model knows).

    Args:
        context_length: most tokens of a conversation, where `read.drop_turns` may shorten it.
    """
    if config.read.what != "answer":
        return prompts_by_split(config, questions.examples, ROLES, tokenizer, context_length), KnowledgePrompts()
    elicit, seed = config.elicit, config.data.data_seed
    learned = config.adapter.train_on != "all"
    first = questions.trained[0]
    prompt_config = KnowledgePromptConfig(
        elicit.shots, elicit.belief_draws, elicit.format, seed, config.data.wrong, tokenizer
    )
    chosen = system_prompts(elicit.system)
    sets: dict[tuple[str, str, str], list[DemoSet]] = {}

    def owner_of(dataset: str, pool: str) -> str:
        """Whose demonstrations stand beside a data set's questions."""
        return dataset if (dataset, pool) in questions.pools else first

    def demos(dataset: str, pool: str, form: str) -> tuple[ExampleSource, list[DemoSet]]:
        """Demonstrations that ask as the tested questions of this form do."""
        owner = owner_of(dataset, pool)
        if (owner, pool, form) not in sets:
            rng = np.random.default_rng([seed, *owner.encode(), *pool.encode()])
            name = pool if owner == first else f"{owner}-{pool}"
            name = name if form == config.data.form else f"{name}-{form}"
            shown = [example for example in questions.pools[owner, pool] if example.form == form]
            sets[owner, pool, form] = draw_demo_sets(shown, elicit.shots, elicit.demo_sets, name, rng)
        return questions.datasets[owner], sets[owner, pool, form]

    prompts: list[Prompt] = []
    belief = KnowledgePrompts()
    for split, examples in questions.examples.items():
        judged = split in JUDGED
        systems = {c: systems_for(chosen, c, judged) for c in elicit.conditions if chosen and c != "neutral"}
        for name, form in dict.fromkeys((example.dataset, example.form) for example in examples):
            mine = [example for example in examples if (example.dataset, example.form) == (name, form)]
            dataset = questions.datasets[name]
            own, role, twin = name in questions.trained, ROLES[split], form != config.data.form
            templates = tested_templates(config, dataset, own, role, form)
            owner, shown = demos(name, "demos-held-out" if judged else "demos", form)
            prompts += make_prompts(
                mine,
                split,
                elicit.conditions,
                templates,
                shown,
                elicit.format,
                seed,
                tokenizer,
                elicit.renders,
                systems,
                demo_templates(templates, owner, dataset),
                len(tested_templates(config, dataset, own, role)) if twin else None,
            )
            if twin:
                # What a group knows is asked once, in both polarities where that is needed.
                continue
            if split in ("calibrate", *JUDGED) or (learned and split in ("adapter-train", "select")):
                prompter = owner_of(name, "demos-belief")
                pool = sorted({example.group for example in questions.pools[prompter, "demos-belief"]})
                belief.extend(
                    knowledge_prompts(dataset, questions.datasets[prompter], pool, mine, split, prompt_config)
                )
    return prompts, belief
