"""Which training data sets are drawn for a curve over their number, at equal labels."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence

import numpy as np

from adapterprobe.config import RunConfig
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
    have = {name: _labels(config, [name]) for name in names}
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
    shares = config.data.shares
    per_share = wanted / sum(shares[split] for split in LEARNED)
    budget = {split: round(per_share * shares[split]) for split in EQUAL}
    demonstrations = config.read.what == "answer" and config.elicit.shots > 0
    shown = len(chosen) * 3 * config.data.pool_groups if demonstrations else 0
    most = round(per_share / 2)
    data = {"train": list(chosen), "data_seed": seed, "labels": {**config.data.labels, **budget}}
    while True:
        made = _prepared(config, data | {"max_groups": most + shown})
        if made is not None and _whole(made, budget, chosen):
            break
        if made is not None and "training data sets" not in made.dropped:
            raise ConfigError(
                f"{', '.join(chosen)} do not give {wanted} labels in which each takes part; give another number with --labels, or fewer data "
                "sets"
            )
        most = round(most * GROWTH)
    found = data | {"max_groups": most + shown}
    if config.data.read_by_name:
        found["read_by_name"] = {name: read.model_dump() for name, read in _read_by_name(config, chosen).items()}
    return [f"data.{key}={json.dumps(value)}" for key, value in found.items()]


def _whole(made: Questions, budget: dict[str, int], chosen: Sequence[str]) -> bool:
    enough = all(len(made.examples[split]) > budget[split] - LARGEST_GROUP for split in EQUAL)
    names = {name for name, dataset in made.datasets.items() if name in made.trained}
    there = [{e.dataset for e in made.examples[split]} for split in LEARNED]
    # Two facts of one kind often cannot be wrong about one another.
    return enough and set.union(*there) == names and all(len(part) >= TAKE_PART * len(names) for part in there)


def _read_by_name(config: RunConfig, chosen: Sequence[str]) -> dict:
    from pathlib import PurePath

    used = {*chosen, *config.data.ood}
    used |= {PurePath(name).name for name in used}
    return {name: read for name, read in config.data.read_by_name.items() if name in used}


def _prepared(config: RunConfig, changes: dict) -> Questions | None:
    """The questions of a cell; None where there are too few groups."""
    names = changes["train"]
    data = config.data.model_copy(update=changes | {"read_by_name": _read_by_name(config, names)})
    try:
        return prepare_questions(config.model_copy(update={"data": data}))
    except TooFewGroups:
        return None


def _labels(config: RunConfig, names: Sequence[str]) -> int:
    """Labels that data sets have in `LEARNED`, the split of `EQUAL` that has fewest for its share bounding all; 0 where there is too little."""
    made = _prepared(config, {"train": list(names), "max_groups": None, "labels": {}})
    if made is None:
        return 0
    shares = config.data.shares
    whole = min(len(made.examples[split]) / shares[split] for split in EQUAL if shares[split])
    return int(whole * sum(shares[split] for split in LEARNED))
