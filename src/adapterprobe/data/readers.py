"""Rows of a file or folder, one after another, with their line numbers: a file may be larger than memory.

A row that cannot be read is passed on as the `InvalidRow` that says why; whoever reads decides what to do with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterprobe.data.cells import InvalidRow
from adapterprobe.data.delimited import read_table_file
from adapterprobe.data.row_source import Rows, Source, checked_columns, text_lines
from adapterprobe.errors import DataError
from adapterprobe.small_files import JSON_LIMIT, parse_json, read_text

FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
BATCH = 1024
BATCH_BYTES = 1 << 26
"""About the most bytes of a Parquet file that are decoded at once."""
ROW_BYTES = 1 << 20
"""Bytes beyond which a row of a Parquet file, on average, is no text to be asked about."""
MOST_CHARS = 1_000_000
"""Characters of one cell."""


def open_file(path: Path) -> Source:
    """Open a JSONL, JSON, CSV, TSV or Parquet file.

    Raises:
        DataError: another kind of file, or one that cannot be opened, or without any row.
    """
    readers = {".parquet": _parquet, ".csv": read_table_file, ".tsv": read_table_file, ".json": _json_array}
    try:
        reader = readers.get(path.suffix.casefold(), _json_lines)
        if path.suffix.casefold() not in FILES:
            raise DataError(
                f"{path.name} is not of a kind that can be read; expected one of {', '.join(FILES)}, or a folder"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path.name} is empty")
        return reader(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error


def _json_lines(path: Path) -> Source:
    def rows() -> Rows:
        for line, text in enumerate(text_lines(path), 1):
            if not text.strip():
                continue
            try:
                row = parse_json(text)
            except ValueError as error:
                yield line, InvalidRow(_why_no_json(error))
                continue
            yield line, _object(row)

    columns = _columns_of(rows())
    if not columns:
        raise DataError(f"{path.name} has no line that is a JSON object; expected one object per line")
    return Source(path.name, checked_columns(path.name, columns), rows())


def _columns_of(rows: Rows) -> list[str]:
    """Keys of the first rows that have any, in their order."""
    columns: dict[str, None] = {}
    for seen, (_, row) in enumerate(rows):
        if not isinstance(row, InvalidRow):
            columns |= dict.fromkeys(row)
        if seen >= 50 and columns:
            break
    return list(columns)


def _object(row: object) -> Mapping[str, object] | InvalidRow:
    return row if isinstance(row, dict) else InvalidRow(f"is not an object but {type(row).__name__}")


def _json_array(path: Path) -> Source:
    """A file that is one JSON array of objects; rows count from 1."""
    text = read_text(path, "the data", JSON_LIMIT, DataError, "write larger files as one object a line (.jsonl)")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path.name} {_why_no_json(error)}; expected an array of objects") from None
    if not isinstance(content, list):
        raise DataError(f"{path.name} holds one {type(content).__name__}; expected an array of objects")
    rows = [(place, _object(row)) for place, row in enumerate(content, 1)]
    columns = _columns_of(iter(rows))
    if not columns:
        raise DataError(f"{path.name} has no object in its array; expected one object a row")
    return Source(path.name, checked_columns(path.name, columns), iter(rows), len(rows))


def _why_no_json(error: ValueError) -> str:
    text = str(error)
    if "stands there twice" in text:
        return f"says something twice ({text})"
    return f"is not JSON ({text.split(':')[0][:80]})"


def _parquet(path: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        # Repeated cells stay as they are written, once: a large one does not multiply.
        file = pq.ParquetFile(path, read_dictionary=texts)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name} is not a Parquet file ({first_line(error)[:120]})") from error
    columns = checked_columns(path.name, file.schema_arrow.names)
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    each = size / max(file.metadata.num_rows, 1)
    if each > ROW_BYTES:
        raise DataError(
            f"{path.name} has {each:,.0f} bytes a row on average, at most {ROW_BYTES:,} are read; take out the large columns"
        )
    count = int(min(BATCH, max(1, BATCH_BYTES // max(each, 1))))

    def rows() -> Rows:
        line = 0
        for batch in file.iter_batches(count):
            for row in _rows_of(batch, texts):
                line += 1
                yield line, row

    return Source(path.name, columns, rows(), file.metadata.num_rows, _classes(file.schema_arrow.metadata))


def _rows_of(batch, texts: Sequence[str]) -> Iterator[Mapping[str, object] | InvalidRow]:
    """Rows of one batch; those with a cell that is too long, or not UTF-8, as the reason."""
    import pyarrow.compute

    # Its functions are made when it is imported, and cannot be seen by a type checker.
    pc: Any = pyarrow.compute
    large: dict[int, str] = {}
    for name in texts:
        column = batch.column(name)
        lengths = pc.binary_length(column.dictionary).take(column.indices) if hasattr(column, "dictionary") else None
        lengths = pc.binary_length(column) if lengths is None else lengths
        for place in pc.indices_nonzero(pc.fill_null(pc.greater(lengths, 4 * MOST_CHARS), False)).to_pylist():
            large[place] = name
    for place in range(len(batch)):
        if place in large:
            yield InvalidRow(f"'{large[place]}' is longer than {MOST_CHARS:,} characters")
            continue
        yield _one(batch.slice(place, 1))


def _classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Class names that `datasets` writes into the files that it saves."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError):
        return {}


def _one(batch) -> Mapping[str, object] | InvalidRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return InvalidRow("holds text that is not UTF-8")
    except (ValueError, OverflowError) as error:
        return InvalidRow(f"holds a value that cannot be read ({str(error)[:80]})")


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
