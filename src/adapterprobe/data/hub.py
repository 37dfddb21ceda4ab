"""Data sets of the hub by name: what each column means stands in one table, `hub.yaml`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from adapterprobe.data.cells import InvalidRow, LeftOut, text_of
from adapterprobe.data.folders import open_repository
from adapterprobe.data.items import QUESTION_FORMS, Item
from adapterprobe.data.row_source import Source
from adapterprobe.data.shapes import right_choice
from adapterprobe.errors import DataError
from adapterprobe.small_files import as_path
from adapterprobe.types import Template, parse_templates


class Unlabelled(LeftOut):
    """A row that the data set gives no answer for (the test split of a shared task)."""

    def __init__(self) -> None:
        super().__init__("unlabelled")


@dataclass(frozen=True)
class HubEntry:
    """One row of the table."""

    name: str
    title: str
    hub: str
    split: str
    config: str | None
    revision: str | None
    group: str | None
    templates: tuple[Template, ...]
    columns: tuple[str, ...]
    """The columns that it reads."""
    read: Callable[[Mapping[str, object]], Item]
    """From a row; raises `InvalidRow` or `Unlabelled`."""

    @property
    def forms(self) -> tuple[str, ...]:
        """Those of its own templates; the general ones serve a question with a list of answers too."""
        own = tuple(dict.fromkeys(template.form for template in self.templates))
        return own if "recall" in own else QUESTION_FORMS


@cache
def hub_table() -> dict[str, HubEntry]:
    """All entries by name."""
    content = yaml.safe_load((resources.files("adapterprobe.data") / "hub.yaml").read_text("utf-8"))
    return {name: _entry(name, entry) for name, entry in content.items()}


def _entry(name: str, entry: dict) -> HubEntry:
    answers, columns = _answers(entry)
    texts = entry["texts"]

    def read(row: Mapping[str, object]) -> Item:
        found = answers(row)
        return Item(0, {ours: text_of(row, theirs) for ours, theirs in texts.items()}, answers=found)

    return HubEntry(
        name=name,
        title=entry["title"],
        hub=entry["hub"],
        split=entry["split"],
        config=entry.get("config"),
        revision=entry.get("revision"),
        group=entry.get("group"),
        templates=parse_templates(entry["templates"]),
        columns=(*texts.values(), *columns),
        read=read,
    )


def _answers(entry: dict) -> tuple[Callable[[Mapping], tuple[str, ...]], tuple[str, ...]]:
    """(from a row to its answers, the right one first; the columns that hold them)."""
    if "label" in entry:
        column, meaning = entry["label"], entry["answers"]

        def labelled(row: Mapping) -> tuple[str, ...]:
            value = row.get(column)
            if value is None or value == -1 or (isinstance(value, float) and math.isnan(value)):
                raise Unlabelled
            if not isinstance(value, (bool, int)) or value not in meaning:
                raise InvalidRow(f"'{column}' is {value!r}, expected one of {sorted(meaning)}")
            return (meaning[value], *(answer for key, answer in meaning.items() if key != value))

        return labelled, (column,)
    if "right" in entry:
        right, wrong = entry["right"], entry["wrong"]

        def by_column(row: Mapping) -> tuple[str, ...]:
            return _right_first([text_of(row, column) for column in (right, *wrong)], 0)

        return by_column, (right, *wrong)
    if "targets" in entry:
        column = entry["targets"]

        def targeted(row: Mapping) -> tuple[str, ...]:
            texts, labels = _parallel(row, column, "choices", "labels")
            if labels.count(1) != 1:
                raise InvalidRow(f"'{column}' has not exactly one right choice")
            return _right_first(texts, labels.index(1))

        return targeted, (column,)
    column, key = entry["choices"], entry["answer"]

    def chosen(row: Mapping) -> tuple[str, ...]:
        if not row.get(key):
            raise Unlabelled
        texts, labels = _parallel(row, column, "text", "label")
        return _right_first(texts, right_choice(row[key], texts, [str(label) for label in labels]))

    return chosen, (column, key)


def _parallel(row: Mapping, column: str, texts: str, labels: str) -> tuple[list[str], list]:
    """(texts, labels) of an object with two lists of one length."""
    given = row.get(column)
    if not isinstance(given, Mapping) or not all(isinstance(given.get(key), Sequence) for key in (texts, labels)):
        raise InvalidRow(f"'{column}' is not an object with lists '{texts}' and '{labels}'")
    if len(given[texts]) != len(given[labels]):
        raise InvalidRow(f"'{column}' has {len(given[texts])} of '{texts}' and {len(given[labels])} of '{labels}'")
    return [text_of({column: text}, column) for text in given[texts]], list(given[labels])


def _right_first(texts: list[str], right: int) -> tuple[str, ...]:
    """The right answer, then what differs from it, each once."""
    return (texts[right], *dict.fromkeys(text for text in texts if text != texts[right]))


def open_entry(entry: HubEntry, split: str | None, folder: str | None) -> Source:
    """Open the rows of an entry: on the hub, or in `folder` (repositories as OWNER/NAME below it).

    Raises:
        DataError: it cannot be loaded, or lacks columns.
    """
    where, revision = entry.hub, entry.revision
    if folder is not None:
        where = str(as_path(folder, DataError) / entry.hub)
        if not Path(where).is_dir():
            raise DataError(f"'{entry.name}' is {entry.hub} on the hub, and {where} is no folder; download it there")
    source = open_repository(entry.name, where, entry.config, split or entry.split, revision)
    missing = [column for column in entry.columns if column not in source.columns]
    if missing:
        raise DataError(
            f"{entry.hub} lacks the columns {missing}, it has {source.columns}: it has changed since our table was "
            f"written; read it as your own with --data hub:{entry.hub} and --column"
        )
    return source
