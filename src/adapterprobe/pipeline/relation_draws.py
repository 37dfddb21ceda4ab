"""Which training data sets are drawn for a curve over their number, at equal labels."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts.questions import prepare_questions

LEARNED = ("adapter-train", "probe-train")
"""Splits whose labels are held equal: adapters are trained on the first, probes on both, or on the second."""
GROWTH = 1.25
"""By how much more groups are tried, until the splits have their labels."""


def relation_splits(
    config: RunConfig, counts: Sequence[int], draws: int, labels: int | None = None
) -> list[tuple[str, list[str]]]:
    """A cell for every number of data sets and draw: its name, and what it changes in the configuration.

    Each draw has a data seed of its own. All cells have the same number of labels in `LEARNED` (to a group), dealt out by `data.shares`. A data set is
    drawn only where it has its part of them, so that one alone is one of the larger ones.

    Args:
        config: `data.train` is what is drawn from.
        labels: in both splits together; None: as many as half of the data sets have by themselves.

    Raises:
        ConfigError: numbers that are not in 1..n, fewer than two of them, or more labels than there are.
    """
    names = config.data.train
    if len(set(counts)) < 2 or min(counts) < 1 or max(counts) > len(names) or len(set(counts)) != len(counts):
        raise ConfigError(
            f"--relations expects at least two different numbers of data sets from 1 to {len(names)} (data.train has so many), got "
            f"{','.join(map(str, counts))}"
        )
    if draws < 1:
        raise ConfigError(f"--draws expects at least 1, got {draws}")
    have = {name: _labels(config, [name], None) for name in names}
    wanted = labels or int(statistics.median(have.values()))
    cells = []
    for draw in range(draws):
        seed = config.data.data_seed + draw
        order = [names[i] for i in np.random.default_rng([seed, 31]).permutation(len(names))]
        for count in sorted(counts):
            chosen = [name for name in order if have[name] * count >= wanted][:count]
            if len(chosen) < count:
                raise ConfigError(
                    f"{count} of {len(names)} data sets with {wanted} labels together: only {len(chosen)} have their part of them; give fewer "
                    f"with --labels (the largest has {max(have.values())})"
                )
            seeded = config.model_copy(update={"data": config.data.model_copy(update={"data_seed": seed})})
            cells.append((f"relations={count},draw={draw}", _changes(seeded, chosen, wanted)))
    return cells


def _changes(config: RunConfig, chosen: Sequence[str], wanted: int) -> list[str]:
    shares = {split: config.data.shares[split] for split in LEARNED}
    per_share = wanted / sum(shares.values())
    # What is chosen by is held equal too.
    budget = {split: round(per_share * config.data.shares[split]) for split in (*LEARNED, "select")}
    most = round(per_share / 2)
    shown = len(chosen) * 3 * config.data.pool_groups if config.elicit.shots else 0
    have, before = _labels(config, chosen, most + shown), -1
    # Once more groups bring no more labels there are no more.
    while before < have < wanted:
        most = round(most * GROWTH)
        before, have = have, _labels(config, chosen, most + shown)
    return [
        f"data.train={json.dumps(list(chosen))}",
        f"data.data_seed={config.data.data_seed}",
        f"data.max_groups={most + shown}",
        f"data.labels={json.dumps(config.data.labels | budget)}",
    ]


def _labels(config: RunConfig, names: Sequence[str], most: int | None) -> int:
    """Labels in `LEARNED`, each split counted up to its share of what both have; 0 where there is too little for any split."""
    data = config.data.model_copy(update={"train": list(names), "ood": [], "max_groups": most, "labels": {}})
    try:
        made = prepare_questions(config.model_copy(update={"data": data}))
    except DataError:
        return 0
    shares = {split: config.data.shares[split] for split in LEARNED}
    # The split that lost most to balancing bounds them both.
    whole = min(len(made.examples[split]) / share for split, share in shares.items())
    return int(whole * sum(shares.values()))
