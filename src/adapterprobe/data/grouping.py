"""Groups of rows: by the cell that names one, by near-duplicates, or of transcripts by their setting."""

from __future__ import annotations

from dataclasses import replace

from adapterprobe.data.contexts import context_groups
from adapterprobe.data.duplicates import near_groups, normalised, plain_form, text_key
from adapterprobe.data.items import Item
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
    conversations = [item.conversation for item in items if item.conversation is not None]
    groups = context_groups(conversations)
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
