"""Rows of comma- and tab-separated files, with the line that each begins in."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from adapterprobe.data.cells import InvalidRow, check_text
from adapterprobe.data.row_source import Rows, Source, checked_columns, text_lines
from adapterprobe.errors import DataError
from adapterprobe.terminal import shortened


def read_table_file(path: Path) -> Source:
    tabs = path.suffix.casefold() == ".tsv"
    csv.field_size_limit(2**27)
    cells = _tabbed_cells if tabs else _csv_cells
    head = next(cells(path), (1, []))[1]
    if isinstance(head, InvalidRow):
        raise DataError(f"{path.name}: the first line {head}; expected column names")
    header = [cell.strip() for cell in head]
    try:
        for cell in header:
            check_text(cell, "header")
    except InvalidRow as error:
        raise DataError(f"{path.name}: {error}; save the file as UTF-8") from None
    if len(header) == 1 and (other := next((sign for sign in ";\t|," if sign in header[0]), None)):
        raise DataError(
            f"{path.name}: the columns seem to be parted by {other!r}; save it with commas, or with tabs as .tsv"
        )
    if not any(header):
        raise DataError(f"{path.name}: expected different column names in the first line, got {shortened(header)}")
    checked_columns(path.name, header)

    def rows() -> Rows:
        found = cells(path)
        next(found)
        for line, row in found:
            if not isinstance(row, InvalidRow) and len(row) != len(header):
                row = InvalidRow(f"has {len(row)} cells, the header has {len(header)}")
            yield line, row if isinstance(row, InvalidRow) else dict(zip(header, row, strict=True))

    return Source(path.name, header, rows())


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str] | InvalidRow]]:
    physical: list[str] = []

    def lines() -> Iterator[str]:
        for line in text_lines(path):
            physical.append(line)
            yield line

    reader = csv.reader(lines(), strict=True)
    columns: int | None = None
    while True:
        line = reader.line_num + 1
        physical.clear()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # An open quote swallows lines until the next one: each of them is lost.
            for lost in range(line, max(reader.line_num, line) + 1):
                yield lost, InvalidRow(f"is not CSV, or follows an open quote ({error})")
            continue
        if not row:
            continue
        if columns is not None and len(physical) > 1 and all(_cells_alone(text) == columns for text in physical):
            yield (
                line,
                InvalidRow(
                    f"begins a quotation that runs over {len(physical)} lines which look like rows; close or double the quote"
                ),
            )
            continue
        columns = columns or len(row)
        yield line, row


def _cells_alone(line: str) -> int:
    """How many cells a line would have if it were a row by itself; quotes that do not pair off are plain characters."""
    text = line.rstrip("\r\n")
    if text.count('"') % 2 == 0:
        try:
            return len(next(csv.reader([text], strict=True), []))
        except csv.Error:
            pass
    return len(text.split(","))


def _tabbed_cells(path: Path) -> Iterator[tuple[int, list[str] | InvalidRow]]:
    """Rows of tab-separated values: one line a row. Cells in quotes are read as programs for tables write them (`"a ""b"" c"`);
    where quotes do not pair off in a line, they are plain characters."""
    header: int | None = None
    for line, text in enumerate(text_lines(path), 1):
        text = text.rstrip("\r\n")
        if not text:
            continue
        plain = text.split("\t")
        row = plain
        if '"' in text:
            try:
                quoted = next(csv.reader([text], delimiter="\t", strict=True))
            except csv.Error:
                quoted = None
            # Without strict quoting a line whose last quote is open would be read as if it went on.
            if quoted is not None and text.count('"') % 2 == 0 and len(quoted) == (header or len(quoted)):
                row = quoted
        header = header or len(row)
        yield line, row
