"""Which training data sets are drawn for a curve over their number, at equal labels."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.data import load_data
from adapterprobe.errors import ConfigError, TooFewGroups
from adapterprobe.progress import bar
from adapterprobe.prompts.questions import Questions, prepare_questions
from adapterprobe.prompts.reading import reading_found

LEARNED = ("adapter-train", "probe-train")
"""Splits whose labels are counted: adapters are trained on the first, probes on both, or on the second."""
EQUAL = (*LEARNED, "select")
"""Splits that have the same number of labels in every cell."""
LARGEST_GROUP = 8
"""Labels that may be lacking, since groups go whole."""
TAKE_PART = 0.7
"""Of the data sets that are drawn, in each split of `LEARNED`; all of them in one or the other."""
GROWTH = 1.25
"""By how much more groups are tried, until the splits have their labels."""


def relation_splits(
    config: RunConfig, counts: Sequence[int], draws: int, labels: int | None = None
) -> list[tuple[str, list[str]]]:
    """A cell for every number of data sets and draw: its name, and what it changes in the configuration (`data.train`, `data_seed`,
    `max_groups`, and the `labels` of `EQUAL`).

    Each draw has a data seed of its own. All cells have the same number of labels (to a group), dealt out by `data.shares`, and every data set
    that is drawn is in what is learned from (see `TAKE_PART`). A data set is drawn only where it has its part of the labels, so that one alone is one of the larger ones.

    Args:
        config: `data.train` is what is drawn from.
        labels: in `LEARNED` together; None: as many as half of the data sets have by themselves, or what two groups of each of the most need.

    Raises:
        ConfigError: numbers that are not in 1..n, fewer than two of them, nothing to be judged on, more labels than there are, or too few for
            all data sets to take part.
        DataError: data that cannot be used.
    """
    config = reading_found(config)
    names = config.data.train
    if len(set(counts)) < 2 or min(counts) < 1 or max(counts) > len(names) or len(set(counts)) != len(counts):
        raise ConfigError(
            f"--relations expects at least two different numbers of data sets from 1 to {len(names)} (data.train has so many), got "
            f"{','.join(map(str, counts))}"
        )
    if draws < 1:
        raise ConfigError(f"--draws expects at least 1, got {draws}")
    if not config.data.ood:
        raise ConfigError("--relations is about data that nothing was trained on, and data.ood names none; give --ood")
    shares = {split: config.data.shares[split] for split in EQUAL}
    learned = sum(shares[split] for split in LEARNED)
    # Two facts of each, which can be wrong about one another, in the smaller of the splits.
    least = math.ceil(4 * max(counts) * learned / min(shares[split] for split in LEARNED if shares[split]))
    have = {name: _labels(config, name) for name in names}
    if not any(have.values()):
        # Whatever is the matter with all of them is told by the first.
        _prepared(config, _alone(names[0]))
    wanted = max(int(statistics.median(have.values())), least) if labels is None else labels
    if wanted < least:
        raise ConfigError(f"{max(counts)} data sets need at least {least} labels to take part, got --labels {wanted}")
    cells = []
    with bar(draws * len(counts), "drawing data sets", unit="run") as progress:
        for draw in range(draws):
            seed = config.data.data_seed + draw
            order = [names[i] for i in np.random.default_rng([seed, 31]).permutation(len(names))]
            for count in sorted(counts):
                chosen = [name for name in order if have[name] * count >= wanted][:count]
                if len(chosen) < count:
                    raise ConfigError(
                        f"{count} of {len(names)} data sets with {wanted} labels together: only {len(chosen)} have their part of them; give "
                        f"fewer with --labels (the largest has {max(have.values())})"
                    )
                cells.append((f"relations={count},draw={draw}", _changes(config, seed, chosen, wanted)))
                progress.update()
    return cells


def _changes(config: RunConfig, seed: int, chosen: Sequence[str], wanted: int) -> list[str]:
    """What makes a cell, tried out: the fewest groups, in steps, with which all splits have their labels.

    Raises:
        ConfigError: they never have.
    """
    every = {g for name in chosen for g in load_data(name, config.reading(name), config.data.data_seed).groups}
    shares = config.data.shares
    per_share = wanted / sum(shares[split] for split in LEARNED)
    budget = {split: round(per_share * shares[split]) for split in EQUAL}
    demonstrations = config.read.what == "answer" and config.elicit.shots > 0
    shown = len(chosen) * 3 * config.data.pool_groups if demonstrations else 0
    most = round(per_share / 2)
    data = {"train": list(chosen), "data_seed": seed, "labels": {**config.data.labels, **budget}}
    while True:
        found = data | {"max_groups": most + shown}
        try:
            if _whole(_prepared(config, found), budget):
                break
            lacking = ""
        except TooFewGroups as error:
            lacking = f" ({error})"
        if most + shown >= len(every):
            raise ConfigError(
                f"{', '.join(chosen)} do not give {wanted} labels in which each takes part{lacking}; give another number with --labels, or "
                "fewer data sets"
            )
        most = round(most * GROWTH)
    if config.data.read_by_name:
        reads = config.data.reads_of([*chosen, *config.data.ood])
        found["read_by_name"] = {name: read.model_dump() for name, read in reads.items()}
    return [f"data.{key}={json.dumps(value)}" for key, value in found.items()]


def _whole(made: Questions, budget: dict[str, int]) -> bool:
    enough = all(len(made.examples[split]) > budget[split] - LARGEST_GROUP for split in EQUAL)
    there = [{e.dataset for e in made.examples[split]} for split in LEARNED]
    # Two facts of one kind often cannot be wrong about one another.
    return (
        enough
        and set.union(*there) == set(made.trained)
        and all(len(part) >= TAKE_PART * len(made.trained) for part in there)
    )


def _alone(name: str) -> dict:
    """What makes a run of all that one data set has."""
    return {"train": [name], "max_groups": None, "labels": {}}


def _prepared(config: RunConfig, changes: dict) -> Questions:
    """The questions of a cell.

    Raises:
        TooFewGroups: there are none.
    """
    reads = config.data.reads_of([*changes["train"], *config.data.ood])
    data = config.data.model_copy(update=changes | {"read_by_name": reads})
    return prepare_questions(config.model_copy(update={"data": data}))


def _labels(config: RunConfig, name: str) -> int:
    """Labels that a data set has in `LEARNED`, the split of `EQUAL` that has fewest for its share bounding all; 0 where there is too little."""
    try:
        made = _prepared(config, _alone(name))
    except TooFewGroups:
        return 0
    shares = config.data.shares
    whole = min(len(made.examples[split]) / shares[split] for split in EQUAL if shares[split])
    return int(whole * sum(shares[split] for split in LEARNED))
