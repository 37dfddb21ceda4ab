"""Splits of several data sets: each has its part of every split, and a budget of labels is kept."""

from collections import Counter

import pytest

from adapterprobe.config_files import read_config
from adapterprobe.data.splits import dealt_in_turn
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts.questions import POOLS, prepare_questions

MANY = ["kinds", "calendar", "additions", "past_tenses", "books", "roman_numerals"]


def _made(train=MANY, **data):
    changes = {"train": train, "ood": [], "min_groups": 2} | data
    config = read_config("demo")
    return prepare_questions(config.model_copy(update={"data": config.data.model_copy(update=changes)}))


def test_small_data_sets_are_not_drowned():
    """342 kinds and 69 days and months: of 108 + 120 groups each data set gives as many, and each stands in each split."""
    made = _made(max_groups=6 * 18 + 120)
    for split in ("adapter-train", "probe-train", "test"):
        assert {e.dataset for e in made.examples[split]} == set(MANY), split
        groups = {name: len(set(made.splits[split]) & set(made.datasets[name].groups)) for name in MANY}
        assert max(groups.values()) - min(groups.values()) <= 2, (split, groups)
    assert sum(len(groups) for groups in made.splits.values()) == 6 * 18 + 120
    # Demonstrations do not go short.
    for name in MANY:
        for pool in POOLS:
            assert len({e.group for e in made.pools[name, pool]}) >= 4, (name, pool)


def test_groups_in_turn():
    owners = {f"{owner}{number}": owner for owner, size in (("a", 9), ("b", 2), ("c", 4)) for number in range(size)}
    chosen = dealt_in_turn(owners, 8, 0, owners, {})
    assert Counter(owners[g] for g in chosen) == {"a": 3, "b": 2, "c": 3}
    assert chosen == dealt_in_turn(list(owners)[::-1], 8, 0, owners, {})
    assert sorted(dealt_in_turn(owners, 99, 0, owners, {})) == sorted(owners)


def test_labels_are_kept_to():
    whole = _made()
    made = _made(labels={"adapter-train": 60, "select": 30})
    for split, most in (("adapter-train", 60), ("select", 30)):
        assert most - 8 <= len(made.examples[split]) <= most < len(whole.examples[split])
        assert set(made.splits[split]) < set(whole.splits[split])
        assert {e.group for e in made.examples[split]} <= set(made.splits[split])
        assert sum(e.truth for e in made.examples[split]) * 2 == len(made.examples[split]), "objects stay balanced"
    assert made.examples["probe-train"] == whole.examples["probe-train"]
    assert made.examples["test"] == whole.examples["test"]
    assert len({e.dataset for e in made.examples["adapter-train"]}) == len(MANY)


def test_too_few_labels_are_refused():
    with pytest.raises(DataError, match=r"data.labels: 8 labels leave \d+ groups of probe-train, at least 8 expected"):
        _made(labels={"probe-train": 8}, min_groups=8)
    with pytest.raises(ConfigError, match="at least 4 labels"):
        read_config("demo", ["data.labels={select: 2}"])
    with pytest.raises(ConfigError, match="labels"):
        read_config("demo", ["data.labels={test: 20}"])
