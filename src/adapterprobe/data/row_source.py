"""Where rows come from, opened: a source, its columns, the lines of a text file."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterprobe.data.cells import InvalidRow
from adapterprobe.errors import DataError
from adapterprobe.terminal import shortened

LINE_CHARS = 1 << 26
"""Characters of one line of a text file."""
MOST_COLUMNS = 10_000

Rows = Iterator[tuple[int, Mapping[str, object] | InvalidRow]]


@dataclass
class Source:
    """Where rows come from, opened."""

    name: str
    columns: list[str]
    rows: Rows
    """(line, row); lines of a text file count from 1 with its header, rows of other sources from 1."""
    total: int | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the classes that a column of numbers stands for, where the source says so."""


def text_lines(path: Path) -> Iterator[str]:
    """Lines as text; bytes that are not UTF-8 become lone surrogates, which `check_text` finds.

    Raises:
        DataError: a line is so long that it cannot be one of a table.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 0
        while text := file.readline(LINE_CHARS):
            number += 1
            if len(text) == LINE_CHARS and not text.endswith("\n"):
                raise DataError(
                    f"{path.name}: line {number} has more than {LINE_CHARS} characters; expected one row a line"
                )
            yield text


def checked_columns(name: str, columns: Iterable[str]) -> list[str]:
    """Column names, each once.

    Raises:
        DataError: too many, one twice (which of the two would count could not be known), or one that is no text.
    """
    columns = list(columns)
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"{name} has {len(columns)} columns, at most {MOST_COLUMNS} are read; take out those not needed"
        )
    # Blanks at the ends and characters that nobody sees do not tell two columns apart.
    seen = ["".join(c for c in str(column).strip() if unicodedata.category(c) != "Cf") for column in columns]
    twice = sorted(column for column, count in Counter(seen).items() if count > 1 and column)
    if twice:
        raise DataError(
            f"{name}: expected different column names, got {', '.join(map(shortened, twice[:5]))} more than once; rename or take out one "
            "of each"
        )
    return columns
