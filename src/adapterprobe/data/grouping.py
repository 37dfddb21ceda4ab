"""Groups of rows: by the cell that names one, by near-duplicates, or of transcripts by their setting."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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


def grouped_by_words(items: list[Item]) -> list[Item]:
    """Groups of near-duplicates."""
    words = [item.words for item in items]
    return _named(items, words, near_groups(words))


def grouped_by_context(name: str, items: list[Item], rows: Sequence[object] | None = None) -> list[Item]:
    """Transcripts in groups by their setting (see `context_groups`), which is told.

    Args:
        rows: what row each comes from; None: its line.
    """
    conversations = [item.conversation for item in items if item.conversation is not None]
    groups = context_groups(conversations, [item.line for item in items] if rows is None else rows)
    say(f"{name}: {groups} (--group COLUMN names a column instead)")
    return _named(items, [conversation.script for conversation in conversations], groups.numbers)


def _named(items: list[Item], texts: Sequence[str], numbers: Sequence[int]) -> list[Item]:
    """Items in groups by number, each named by the content of its first member in the order of their texts' words."""
    least: dict[int, str] = {}
    for text, number in zip(texts, numbers, strict=True):
        key = normalised(text)
        least[number] = min(least.get(number, key), key)
    return [replace(item, group=f"~{text_key(least[number])}") for item, number in zip(items, numbers, strict=True)]


def grouped_together(datasets: Sequence[ItemDataset]) -> list[ItemDataset]:
    """Transcripts of several data sets in groups over all of them: a setting that two files share is one group, so that it never stands on
    both sides of a split. Data sets whose groups a column names stay as they are."""
    mine = [dataset for dataset in datasets if dataset.auto_groups and dataset.items[0].conversation is not None]
    rows = [(place, item.line) for place, dataset in enumerate(mine) for item in dataset.items]
    name = ", ".join(dataset.name for dataset in mine)
    return _over_all(datasets, mine, lambda items: grouped_by_context(name, items, rows))


def grouped_by_topic(datasets: Sequence[ItemDataset]) -> list[ItemDataset]:
    """Statements of a file and of the file of its negations in groups over both: near-duplicates, where no column names groups."""
    found = list(datasets)
    for topic in dict.fromkeys(topic_of(dataset.name) for dataset in datasets):
        mine = [d for d in datasets if topic_of(d.name) == topic and d.auto_groups and d.items[0].conversation is None]
        found = _over_all(found, mine, grouped_by_words)
    return found


def _over_all(
    datasets: Sequence[ItemDataset], mine: Sequence[ItemDataset], grouped: Callable[[list[Item]], list[Item]]
) -> list[ItemDataset]:
    """The data sets, those of `mine` (if they are several) with groups over all their items."""
    if len(mine) < 2:
        return list(datasets)
    items = iter(grouped([item for dataset in mine for item in dataset.items]))
    again = {d.name: replace(d, items=tuple(itertools.islice(items, len(d.items)))) for d in mine}
    return [again.get(dataset.name, dataset) for dataset in datasets]
