"""From configuration to prompts: groups dealt out, examples made, demonstrations drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.data import load_relation, split_groups
from adapterprobe.data.examples import make_examples
from adapterprobe.elicit import (
    TEMPLATES,
    belief_prompts,
    check_format,
    draw_demo_sets,
    make_prompts,
    system_prompts,
    systems_for,
    templates_for,
)
from adapterprobe.errors import DataError
from adapterprobe.types import Example, Prompt

POOLS = ("demos", "demos-held-out", "demos-belief")
"""Groups in no split. Demonstrations of training splits, of judged splits, and of belief come from different
pools, so that no probe can win by recognising its demonstrations."""


@dataclass(frozen=True)
class Questions:
    """What a run asks, before any model is loaded."""

    splits: dict[str, list[str]]
    examples: dict[str, list[Example]]
    pools: dict[tuple[str, str], list[Example]]
    dropped: dict[str, int]
    """Facts left out of a data set because their object could not be balanced, per data set."""


def prepare_questions(config: RunConfig) -> Questions:
    """Deal groups out and make the examples of every split.

    Raises:
        DataError: unknown data set, or too few groups.
        ConfigError: unknown format or system prompt.
    """
    data = config.data
    check_format(config.elicit.format)
    chosen = system_prompts(config.elicit.system)
    for condition in config.elicit.conditions:
        if chosen and condition != "neutral":
            systems_for(chosen, condition, judged=False)
    train = [load_relation(name) for name in data.train]
    ood = [load_relation(name) for name in data.ood]
    groups = sorted({group for relation in train for group in relation.groups})
    if data.max_groups is not None:
        order = np.random.default_rng([data.data_seed, 3]).permutation(len(groups))
        groups = sorted(groups[i] for i in order[: data.max_groups])
    pool_sizes = dict.fromkeys(POOLS, data.pool_groups if config.elicit.shots else 0)
    splits = split_groups(groups, data.shares, pool_sizes, data.data_seed, data.min_groups)
    examples: dict[str, list[Example]] = {}
    pools: dict[tuple[str, str], list[Example]] = {}
    asked: dict[str, int] = {}
    for name in data.shares:
        examples[name] = [e for relation in train for e in _examples(relation, splits[name], config, asked)]
    for pool in POOLS:
        for relation in train:
            pools[relation.name, pool] = _examples(relation, splits[pool], config, {})
    seen = {group for name in splits if name != "test" for group in splits[name]}
    examples["ood"] = []
    for relation in ood:
        free = [group for group in relation.groups if group not in seen]
        order = np.random.default_rng([data.data_seed, 4, *relation.name.encode()]).permutation(len(free))
        free = [free[i] for i in order]
        if config.elicit.ood_demos == "own" and config.elicit.shots:
            own = {pool: free[i * data.pool_groups : (i + 1) * data.pool_groups] for i, pool in enumerate(POOLS)}
            free = free[len(POOLS) * data.pool_groups :]
            for pool in POOLS:
                pools[relation.name, pool] = _examples(relation, own[pool], config, {})
        kept = free[: data.max_ood_groups]
        if len(kept) < data.min_groups:
            raise DataError(
                f"'{relation.name}' has {len(kept)} groups that no training split has, at least {data.min_groups} "
                "expected; choose another out-of-distribution set or lower data.min_groups"
            )
        examples["ood"] += _examples(relation, kept, config, asked)
    for name, made in examples.items():
        here = {example.group for example in made}
        if len(here) < data.min_groups:
            raise DataError(
                f"split '{name}' has {len(here)} groups after balancing objects, at least {data.min_groups} expected; "
                "use more data, or lower data.min_groups"
            )
        if len({example.truth for example in made}) < 2:
            raise DataError(f"split '{name}' has one class only; use a data set with right and wrong answers")
    return Questions(splits, examples, pools, {name: count for name, count in asked.items() if count})


def _examples(relation, groups, config: RunConfig, dropped: dict[str, int]) -> list[Example]:
    made = make_examples(relation, groups, config.data.form, config.data.data_seed, config.data.wrong)
    wanted = sum(fact.group in set(groups) for fact in relation.facts)
    dropped[relation.name] = dropped.get(relation.name, 0) + wanted - len(made) // 2
    return made


def prepare_prompts(config: RunConfig, questions: Questions, tokenizer) -> tuple[list[Prompt], list[Prompt]]:
    """(tested prompts of all splits, belief prompts of the judged splits)."""
    elicit, form, seed = config.elicit, config.data.form, config.data.data_seed
    templates = templates_for(form, elicit.templates)
    belief_templates = templates_for(form, belief=True)
    first = config.data.train[0]
    chosen = system_prompts(elicit.system)
    sets: dict[tuple[str, str], list] = {}

    def demos(dataset: str, pool: str):
        owner = dataset if (dataset, pool) in questions.pools else first
        if (owner, pool) not in sets:
            rng = np.random.default_rng([seed, *owner.encode(), *pool.encode()])
            count = max(elicit.belief_draws, 1) if pool == "demos-belief" else elicit.demo_sets
            name = pool if owner == first else f"{owner}-{pool}"
            sets[owner, pool] = draw_demo_sets(questions.pools[owner, pool], elicit.shots, count, name, rng)
        return sets[owner, pool]

    prompts: list[Prompt] = []
    belief: list[Prompt] = []
    for split, examples in questions.examples.items():
        judged = split in ("test", "ood")
        pool = "demos-held-out" if judged else "demos"
        systems = {c: systems_for(chosen, c, judged) for c in elicit.conditions if chosen and c != "neutral"}
        for dataset in dict.fromkeys(example.dataset for example in examples):
            mine = [example for example in examples if example.dataset == dataset]
            prompts += make_prompts(
                mine,
                split,
                elicit.conditions,
                templates,
                demos(dataset, pool),
                elicit.format,
                seed,
                tokenizer,
                elicit.renders,
                systems,
            )
            if split in ("calibrate", "test", "ood"):
                shown = demos(dataset, "demos-belief")
                belief += belief_prompts(
                    mine, split, belief_templates, shown, elicit.belief_draws, elicit.format, tokenizer
                )
    return prompts, belief


def turn_of(prompt: Prompt) -> str:
    """The question of a prompt without its demonstrations."""
    return TEMPLATES[prompt.template].turn(prompt.example)
