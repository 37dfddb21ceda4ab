"""Groups of rows: by the cell that names one, by near-duplicates, or of transcripts by their setting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from adapterprobe.data.contexts import context_groups
from adapterprobe.data.duplicates import near_groups, normalised, plain_form, text_key
from adapterprobe.data.items import Item, ItemDataset, topic_of
from adapterprobe.progress import say


def group_key(dataset: str, value: str) -> str:
    """The group that a cell names. Short texts are the same subject wherever they stand (`The Hague` here is `the hague`
    there); numbers are the data set's own; long texts go by a hash of their words.

    >>> group_key("a.csv", "France"), group_key("a.csv", "17"), group_key("b.csv", "17")
    ('france', 'a.csv:17', 'b.csv:17')
    """
    key = normalised(value).removeprefix("the ")
    if not any(letter.isalpha() for letter in key):
        return f"{dataset}:{plain_form(value).strip()}"
    return key if len(key) <= 60 else f"~{text_key(value)}"


def grouped_by_context(name: str, items: list[Item]) -> list[Item]:
    """Transcripts in groups by their setting (see `context_groups`), which is told."""
    return _in_settings(name, items, [item.line for item in items])


def grouped_together(datasets: Sequence[ItemDataset]) -> list[ItemDataset]:
    """Transcripts of several data sets in groups over all of them: a setting that two files share is one group, so that it never stands on
    both sides of a split. Data sets whose groups a column names stay as they are."""
    mine = [dataset for dataset in datasets if dataset.auto_groups and dataset.items[0].conversation is not None]
    if len(mine) < 2:
        return list(datasets)
    rows = [(place, item.line) for place, dataset in enumerate(mine) for item in dataset.items]
    items = iter(_in_settings(", ".join(d.name for d in mine), [item for d in mine for item in d.items], rows))
    again = {
        dataset.name: replace(dataset, items=tuple(itertools.islice(items, len(dataset.items)))) for dataset in mine
    }
    return [again.get(dataset.name, dataset) for dataset in datasets]


def grouped_by_topic(datasets: Sequence[ItemDataset]) -> list[ItemDataset]:
    """Statements of a file and of the file of its negations in groups over both: near-duplicates, where no column names groups."""
    found = {dataset.name: dataset for dataset in datasets}
    for topic in dict.fromkeys(topic_of(dataset.name) for dataset in datasets):
        mine = [
            d for d in found.values() if topic_of(d.name) == topic and d.auto_groups and d.items[0].conversation is None
        ]
        if len(mine) < 2:
            continue
        items = iter(grouped_by_words([item for dataset in mine for item in dataset.items]))
        for dataset in mine:
            found[dataset.name] = replace(dataset, items=tuple(itertools.islice(items, len(dataset.items))))
    return list(found.values())


def _in_settings(name: str, items: list[Item], rows: Sequence[object]) -> list[Item]:
    conversations = [item.conversation for item in items if item.conversation is not None]
    groups = context_groups(conversations, rows)
    say(f"{name}: {groups} (--group COLUMN names a column instead)")
    least: dict[int, str] = {}
    for conversation, number in zip(conversations, groups.numbers, strict=True):
        key = normalised(conversation.script)
        least[number] = min(least.get(number, key), key)
    return [
        replace(item, group=f"~{text_key(least[number])}") for item, number in zip(items, groups.numbers, strict=True)
    ]


def grouped_by_words(items: list[Item]) -> list[Item]:
    """Groups of near-duplicates, each named by the content of its first member in the order of their words."""
    numbers = near_groups([item.words for item in items])
    least: dict[int, str] = {}
    for item, number in zip(items, numbers, strict=True):
        key = normalised(item.words)
        least[number] = min(least.get(number, key), key)
    return [replace(item, group=f"~{text_key(least[number])}") for item, number in zip(items, numbers, strict=True)]
