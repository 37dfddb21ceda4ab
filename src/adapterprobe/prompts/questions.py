"""From configuration to questions: groups dealt out, examples made, groups of demonstrations set aside."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapterprobe.config import RunConfig
from adapterprobe.data import ExampleSource, Relation, load_data, split_groups
from adapterprobe.data.duplicates import near_duplicates_of
from adapterprobe.data.examples import said
from adapterprobe.data.references import check_dataset_names, refuse_unused
from adapterprobe.data.splits import dealt_in_turn, shuffled
from adapterprobe.errors import ConfigError, DataError, TooFewGroups
from adapterprobe.prompts import (
    check_format,
    system_prompts,
    systems_for,
    templates_for,
)
from adapterprobe.prompts.reading import check_reading, read_together
from adapterprobe.types import Example, Template

POOLS = ("demos", "demos-held-out", "demos-belief")
"""Groups in no split. Demonstrations of training splits, of judged splits, and of belief come from different
pools, so that no probe can win by recognising its demonstrations."""


@dataclass(frozen=True)
class Questions:
    """What a run asks, before any model is loaded."""

    splits: dict[str, list[str]]
    examples: dict[str, list[Example]]
    pools: dict[tuple[str, str], list[Example]]
    datasets: dict[str, ExampleSource]
    trained: tuple[str, ...]
    """Names of the data sets that splits are made of."""
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    """What was left out of each data set: how many, by reason."""


def prepare_questions(config: RunConfig) -> Questions:
    """Deal groups out and make the examples of every split.

    Raises:
        DataError: unknown data set, rows that cannot be used, or too few groups.
        ConfigError: unknown format, template or system prompt.
    """
    data = config.data
    if config.elicit.format != "auto":
        check_format(config.elicit.format)
    chosen = system_prompts(config.elicit.system)
    for condition in config.elicit.conditions:
        if chosen and condition != "neutral":
            systems_for(chosen, condition, judged=False)
    if not data.read_by_name:
        refuse_unused([*data.train, *data.ood], data.read)
    train, ood = _load_all(config, data.train, data.ood)
    if config.read.what != "answer":
        train, ood = read_together(config, train, ood)
    check_dataset_names([dataset.name for dataset in (*train, *ood)])
    if config.read.what == "answer":
        for form in config.forms:
            for dataset in train:
                tested_templates(config, dataset, own=True, form=form)
            for dataset in ood:
                tested_templates(config, dataset, own=False, form=form)
    else:
        check_reading(config, [*train, *ood])
    sides = {group: side for dataset in train for group, side in dataset.label_sides().items()}
    owners = {group: dataset.name for dataset in reversed(train) for group in dataset.groups}
    everything = sorted(owners)
    pools = _pools(train, everything, sides, config)
    reserved = {pool: [g for dataset in train for g in pools[dataset.name, pool]] for pool in POOLS}
    groups = everything
    if data.max_groups is not None and data.max_groups < len(everything):
        # Demonstrations first: of many data sets, a few groups of each would not do for them.
        shown = {group for pool in reserved.values() for group in pool}
        rest = sorted(set(everything) - shown)
        count = max(0, data.max_groups - len(shown))
        groups = sorted([*shown, *dealt_in_turn(rest, count, [data.data_seed, 3], owners, sides)])
    # Every split has its share of every data set.
    spread = sides if len(train) == 1 else {g: f"{owners[g]}|{sides.get(g, '')}" for g in groups}
    splits = split_groups(groups, data.shares, reserved, data.data_seed, data.min_groups, spread)
    names = tuple(dataset.name for dataset in train)
    made = Questions(splits, {}, {}, {dataset.name: dataset for dataset in (*train, *ood)}, names)
    if len(groups) < len(everything):
        made.dropped["training data sets"] = {"groups beyond data.max_groups": len(everything) - len(groups)}
    usable: dict[str, set[str]] = {}
    for place, dataset in enumerate(train):
        before = functools.partial(_usable_examples, train[:place], usable, config)
        usable[dataset.name] = set(
            _not_said(dataset, dataset.groups, before, config, made) if place else dataset.groups
        )

    def asked(name: str, groups: Iterable[str], told: Questions | None = None) -> list[Example]:
        mine = set(groups)
        return [
            e
            for dataset in train
            for e in _examples(
                dataset, [g for g in splits[name] if g in mine and g in usable[dataset.name]], config, told
            )
        ]

    for name in data.shares:
        kept = splits[name]
        if name in data.labels:
            kept = _within(
                data.labels[name], name, kept, owners, sides, config, lambda groups, n=name: asked(n, groups)
            )
            splits[name] = kept
        made.examples[name] = asked(name, kept, made)
    for (name, pool), mine in pools.items():
        made.pools[name, pool] = _examples(made.datasets[name], [g for g in mine if g in usable[name]], config)
    seen = {group for name in splits if name != "test" for group in splits[name]}
    trained = [e for name in splits for e in made.examples.get(name, []) if name != "test"]
    trained += [e for examples in made.pools.values() for e in examples]
    made.examples["ood"] = [e for dataset in ood for e in _judged_only(dataset, seen, trained, config, made)]
    for dataset in (*train, *ood):
        for reason, count in dataset.dropped.items():
            made.dropped.setdefault(dataset.name, {})[reason] = count
    _check_sizes(config, made)
    return made


def _load_all(config: RunConfig, *names: Sequence[str]) -> list[list[ExampleSource]]:
    """The data sets of each list.

    Raises:
        DataError: all that is wrong with any of them, rather than one file at a time.
    """
    found: list[list[ExampleSource]] = []
    faults: list[str] = []
    for several in names:
        found.append([])
        for name in several:
            try:
                found[-1].append(load_data(name, config.reading(name), config.data.data_seed))
            except DataError as error:
                faults.append(str(error))
    if faults:
        raise DataError("; ".join(dict.fromkeys(faults)))
    return found


def _pools(
    train: list[ExampleSource], groups: list[str], sides: Mapping[str, str], config: RunConfig
) -> dict[tuple[str, str], list[str]]:
    """Groups of demonstrations, per training data set and pool; no group is in two."""
    size = config.data.pool_groups if config.elicit.shots else 0
    taken: set[str] = set()
    pools = {}
    for dataset in train:
        order = shuffled(set(dataset.groups) & set(groups), config.data.data_seed, sides)
        free = [group for group in order if group not in taken]
        for place, pool in enumerate(POOLS):
            pools[dataset.name, pool] = free[place * size : (place + 1) * size]
            taken |= set(pools[dataset.name, pool])
    return pools


def _within(
    most: int,
    split: str,
    groups: Sequence[str],
    owners: Mapping[str, str],
    sides: Mapping[str, str],
    config: RunConfig,
    asked: Callable[[Sequence[str]], list[Example]],
) -> list[str]:
    """As many of a split's groups, of the data sets in turn, as give at most so many examples. What balancing leaves out depends on who is
    there, so that they are counted anew for each number of groups that is tried.

    Raises:
        TooFewGroups: fewer groups than a split may have.
    """
    order = dealt_in_turn(groups, len(groups), [config.data.data_seed, 6, *split.encode()], owners, sides)
    count = bisect.bisect_right(range(1, len(order) + 1), most, key=lambda size: len(asked(order[:size])))
    if count < config.data.min_groups:
        raise TooFewGroups(
            f"data.labels: {most} labels leave {count} groups of {split}, at least {config.data.min_groups} expected; allow more, or lower "
            "data.min_groups"
        )
    kept = set(order[:count])
    return [group for group in groups if group in kept]


def _judged_only(
    dataset: ExampleSource, seen: set[str], trained: list[Example], config: RunConfig, made: Questions
) -> list[Example]:
    """Examples of an out-of-distribution set: of groups that no training split has, saying nothing that those say."""
    data = config.data
    free = [group for group in dataset.groups if group not in seen]
    free = _not_said(dataset, free, lambda: trained, config, made)
    free = shuffled(free, [data.data_seed, 4, *dataset.name.encode()], dataset.label_sides())
    if config.elicit.ood_demos == "own" and config.elicit.shots:
        own = {pool: free[i * data.pool_groups : (i + 1) * data.pool_groups] for i, pool in enumerate(POOLS)}
        free = free[len(POOLS) * data.pool_groups :]
        for pool in POOLS:
            made.pools[dataset.name, pool] = _examples(dataset, own[pool], config)
    kept = free[: data.max_ood_groups]
    if len(kept) < data.min_groups:
        raise TooFewGroups(
            f"'{dataset.name}' has {len(kept)} groups that no training split has, at least {data.min_groups} "
            "expected; choose another out-of-distribution set or lower data.min_groups"
        )
    return _examples(dataset, kept, config, made)


def _not_said(
    dataset: ExampleSource,
    groups: list[str],
    trained: Callable[[], list[Example]],
    config: RunConfig,
    made: Questions,
) -> list[str]:
    """Groups without those that repeat a training question in other words. Built-in relations share groups by name, so
    that there is nothing to look for between two of them."""
    if isinstance(dataset, Relation) and all(isinstance(made.datasets[name], Relation) for name in made.trained):
        return groups
    examples = dataset.examples(groups, config.form, config.data.data_seed, config.data.wrong)
    before = sorted({(said(e), e.group) for e in trained()})
    repeated = near_duplicates_of([said(e) for e in examples], [text for text, _ in before])
    # What one group says twice stands on one side of every split.
    bad = {examples[row].group for row, twin in repeated.items() if before[twin][1] != examples[row].group}
    if bad:
        made.dropped.setdefault(dataset.name, {})["groups that repeat a training question"] = len(bad)
    return [group for group in groups if group not in bad]


def _check_sizes(config: RunConfig, made: Questions) -> None:
    for name, examples in made.examples.items():
        if (name == "ood" and not config.data.ood) or config.data.shares.get(name) == 0:
            continue
        here = {example.group for example in examples}
        if len(here) < config.data.min_groups:
            raise TooFewGroups(
                f"split '{name}' has {len(here)} groups after balancing objects, at least {config.data.min_groups} "
                "expected; use more data, or lower data.min_groups"
            )
        if len({example.truth for example in examples}) < 2:
            raise DataError(f"split '{name}' has one class only; use a data set with right and wrong answers")


def _usable_examples(
    datasets: Sequence[ExampleSource], usable: Mapping[str, set[str]], config: RunConfig
) -> list[Example]:
    return [e for dataset in datasets for e in _examples(dataset, usable[dataset.name], config)]


def _examples(
    dataset: ExampleSource, groups: Iterable[str], config: RunConfig, made: Questions | None = None
) -> list[Example]:
    groups = list(groups)
    data, forms = config.data, config.forms
    found = [e for form in forms for e in dataset.examples(groups, form, data.data_seed, data.wrong)]
    if made is not None and isinstance(dataset, Relation):
        lost = dataset.size(groups) - len(found) // (2 * len(forms))
        if lost:
            reasons = made.dropped.setdefault(dataset.name, {})
            reason = "facts whose object could not be as often wrong as right"
            reasons[reason] = reasons.get(reason, 0) + lost
    return found


def tested_templates(
    config: RunConfig, dataset: ExampleSource, own: bool, role: str | None = None, form: str | None = None
) -> list[Template]:
    """Templates of tested prompts. Those that the configuration names must serve the data sets of training (`own`); one
    that is only judged, and has the texts of none of them, keeps its own, and so does the negated twin (`form`) that they do not serve."""
    names, form = config.elicit.templates, form or config.data.form
    if names is None or (own and form == config.data.form):
        return templates_for(dataset, form, names, role=role)
    fit = []
    for name in names:
        if form != config.data.form and "{" in name:
            # A pattern of one's own asks whether it is so: as its own negation it would have two answers.
            continue
        try:
            fit += templates_for(dataset, form, [name])
        except ConfigError:
            continue
    return fit or templates_for(dataset, form, role=role)
