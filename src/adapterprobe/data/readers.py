"""Rows of a file or folder, one after another, with their line numbers: a file may be larger than memory.

A row that cannot be read is passed on as the `BadRow` that says why; whoever reads decides what to do with it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterprobe.data.shapes import BadRow, check_text
from adapterprobe.errors import DataError

FILES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
BATCH = 1024

Rows = Iterator[tuple[int, Mapping[str, object] | BadRow]]


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


def open_file(path: Path) -> Source:
    """Open a JSONL, CSV, TSV or Parquet file.

    Raises:
        DataError: another kind of file, or one that cannot be opened, or without any row.
    """
    readers = {".parquet": _parquet, ".csv": _table, ".tsv": _table}
    try:
        reader = readers.get(path.suffix.casefold(), _json_lines)
        if path.suffix.casefold() not in FILES:
            raise DataError(
                f"{path.name} is not of a kind that can be read; expected one of {', '.join(FILES)}, or a folder"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path.name} is empty")
        return reader(path)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines as text; bytes that are not UTF-8 become lone surrogates, which `check_text` finds."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from file


def _json_lines(path: Path) -> Source:
    def rows() -> Rows:
        for line, text in enumerate(_lines(path), 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield line, BadRow(f"is not JSON ({str(error).split(':')[0]})")
                continue
            yield line, row if isinstance(row, dict) else BadRow(f"is not an object but {type(row).__name__}")

    columns: dict[str, None] = {}
    for seen, (_, row) in enumerate(rows()):
        if not isinstance(row, BadRow):
            columns |= dict.fromkeys(row)
        if seen >= 50 and columns:
            break
    if not columns:
        raise DataError(f"{path.name} has no line that is a JSON object; expected one object per line")
    return Source(path.name, list(columns), rows())


def _table(path: Path) -> Source:
    options = {"delimiter": "\t"} if path.suffix.casefold() == ".tsv" else {}
    csv.field_size_limit(2**27)

    def cells() -> Iterator[tuple[int, list[str] | BadRow]]:
        reader = csv.reader(_lines(path), strict=True, **options)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # An open quote swallows lines until the next one: each of them is lost.
                for lost in range(line, max(reader.line_num, line) + 1):
                    yield lost, BadRow(f"is not CSV, or follows an open quote ({error})")
                continue
            if row:
                yield line, row

    head = next(cells(), (1, []))[1]
    if isinstance(head, BadRow):
        raise DataError(f"{path.name}: the first line {head}; expected column names")
    header = [cell.strip() for cell in head]
    try:
        for cell in header:
            check_text(cell, "header")
    except BadRow as error:
        raise DataError(f"{path.name}: {error}; save the file as UTF-8") from None
    if len(header) == 1 and (other := next((sign for sign in ";\t|," if sign in header[0]), None)):
        raise DataError(
            f"{path.name}: the columns seem to be parted by {other!r}; save it with commas, or with tabs as .tsv"
        )
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if not any(header) or twice:
        raise DataError(f"{path.name}: expected different column names in the first line, got {header[:20]}")

    def rows() -> Rows:
        found = cells()
        next(found)
        for line, row in found:
            if not isinstance(row, BadRow) and len(row) != len(header):
                row = BadRow(f"has {len(row)} cells, the header has {len(header)}")
            yield line, row if isinstance(row, BadRow) else dict(zip(header, row))

    return Source(path.name, header, rows())


def _parquet(path: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path.name} is not a Parquet file ({str(error).splitlines()[0][:120]})") from error

    def rows() -> Rows:
        line = 0
        for batch in file.iter_batches(BATCH):
            try:
                here: Iterable = batch.to_pylist()
            except UnicodeDecodeError:
                here = map(_one, (batch.slice(i, 1) for i in range(len(batch))))
            for row in here:
                line += 1
                yield line, row

    return Source(
        path.name, file.schema_arrow.names, rows(), file.metadata.num_rows, _classes(file.schema_arrow.metadata)
    )


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


def _one(batch) -> Mapping[str, object] | BadRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return BadRow("holds text that is not UTF-8")


def open_folder(path: Path, config: str | None, split: str | None) -> Source:
    """Open a folder that `datasets` saved (`save_to_disk`), or one laid out like a repository of the hub.

    Raises:
        DataError: it is neither, or has several splits and none was chosen.
    """
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        try:
            return from_datasets(path.name, datasets.load_from_disk(str(path)), split)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot read the saved data set {path} ({_first(error)})") from error
    return open_repository(path.name, str(path), config, split, None)


def open_repository(name: str, where: str, config: str | None, split: str | None, revision: str | None) -> Source:
    """Open a data set of the hub, or a local folder with the same layout.

    Args:
        where: hub id, or the folder.
        config: which of its configurations.

    Raises:
        DataError: it cannot be found or loaded; what was tried, and what to do.
    """
    import datasets

    local = Path(where).is_dir()
    datasets.disable_progress_bars()
    try:
        # A local folder is read as it is; what comes from the hub is kept by `datasets`, so it comes once.
        loaded = datasets.load_dataset(where, name=config, split=split, revision=revision, streaming=local)
    except Exception as error:
        tried = "a local folder" if local else "a data set of the hub"
        remedy = (
            "check that the folder holds data files and the right split"
            if local
            else "check the name, the split and the connection, or download it and name its folder with --hub-folder"
        )
        raise DataError(
            f"cannot load '{name}': tried {where} as {tried}, got {type(error).__name__}: {_first(error)}; {remedy}"
        ) from error
    return from_datasets(name, loaded, split)


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def from_datasets(name: str, loaded, split: str | None) -> Source:
    """Rows of what `datasets` has loaded.

    Raises:
        DataError: several splits, and none or an unknown one was chosen.
    """
    if isinstance(loaded, dict):
        if split is None and len(loaded) > 1:
            raise DataError(f"{name} has the splits {', '.join(loaded)}; choose one with --split")
        if split is not None and split not in loaded:
            raise DataError(f"{name} has no split '{split}'; it has {', '.join(loaded)}")
        loaded = loaded[split or next(iter(loaded))]
    if loaded.features is None:
        # A stream of a kind of file that does not say its columns beforehand.
        loaded = loaded._resolve_features()
    classes = {column: feature.names for column, feature in loaded.features.items() if hasattr(feature, "int2str")}
    total = getattr(loaded, "num_rows", None)
    return Source(name, list(loaded.features), enumerate(loaded, 1), total, classes)
