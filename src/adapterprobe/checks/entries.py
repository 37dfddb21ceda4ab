"""A data set as the checks see it: one entry a row or fact, with where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from adapterprobe.data import ExampleSource, Relation
from adapterprobe.data.items import ItemDataset


@dataclass(frozen=True, slots=True)
class Entry:
    """One claim, question or fact."""

    where: str
    text: str
    """The claim or question; of a fact, its statement with the right object."""
    group: str
    label: bool | None
    """Of a claim; None for what is asked with a right and a wrong answer."""
    right: str
    """The right answer; empty for a claim."""


def entries_of(dataset: ExampleSource) -> list[Entry]:
    """All entries of a data set."""
    if isinstance(dataset, Relation):
        return [
            Entry(fact.subject, dataset.texts(fact, fact.object)["statement"], fact.group, None, fact.object)
            for fact in dataset.facts
        ]
    assert isinstance(dataset, ItemDataset)
    return [
        Entry(f"line {item.line}", item.words, item.group, item.label, item.answers[0] if item.answers else "")
        for item in dataset.items
    ]
