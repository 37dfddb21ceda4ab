"""Score a file of any length, a piece at a time, going on where a stopped scoring was."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from adapterprobe.cache import file_digest, write_atomic
from adapterprobe.data.readers import open_file
from adapterprobe.data.shapes import BadRow
from adapterprobe.errors import DataError, OutputError
from adapterprobe.pipeline.score import Scorer
from adapterprobe.pipeline.score_prompts import Asker
from adapterprobe.progress import bar

PIECE = 512
"""Rows that are scored at once."""
WRITTEN = (".jsonl", ".parquet")


def score_file(
    run: str | Path, file: str | Path, out: str | Path | None, condition: str | None = None, shown: TextIO | None = None
) -> int:
    """Score every row of a file with every detector of a run.

    Args:
        file: JSON lines, CSV, TSV or Parquet with a column `prompt`, or what the run's wordings place (`statement`; `question` and
            `answer`). Columns `condition`, `positive` and `negative` are used where they are there.
        out: a .jsonl or .parquet file; None: lines go to `shown`.
        condition: what rows are pushed to that do not say; default: the first of the run.

    Returns:
        Rows scored.

    Raises:
        DataError, OutputError, ModelError: see `Scorer` and `Asker`; a row that cannot be read is named.
    """
    file = Path(file)
    source = open_file(file)
    if out is not None and Path(out).suffix.casefold() not in WRITTEN:
        raise OutputError(f"--out {out}: expected a file that ends with {' or '.join(WRITTEN)}")
    if out is not None and Path(out).exists():
        raise OutputError(f"--out {out} is there already; remove it, or choose another")
    scorer = Scorer(run)
    asker = Asker(
        scorer.config,
        scorer.choices,
        source.columns,
        condition or scorer.config.elicit.conditions[0],
        scorer.lm.tokenizer,
    )
    if out is None:
        return _each(scorer, asker, source.rows, source.total, 0, lambda line: print(line, file=shown))
    out = Path(out)
    part, mark = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")
    described = {
        "run": str(Path(run).resolve()),
        "file": file_digest(file),
        "condition": asker.condition,
        "seed": scorer.seed,
    }
    done = _done(part, mark, described)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(mark, json.dumps(described))
        with open(part, "a", encoding="utf-8") as lines:
            count = _each(scorer, asker, source.rows, source.total, done, lambda line: _put(lines, line))
        if out.suffix.casefold() == ".parquet":
            _to_parquet(part, out)
            part.unlink()
        else:
            part.replace(out)
        mark.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error}); free some space or choose another --out"
        ) from error
    return count


def _put(lines: TextIO, line: str) -> None:
    lines.write(line + "\n")
    lines.flush()


def _done(part: Path, mark: Path, described: dict) -> int:
    """Rows that an earlier, stopped scoring of the same wrote whole; a torn last line is taken off."""
    if not (part.is_file() and mark.is_file()) or json.loads(mark.read_text("utf-8")) != described:
        part.unlink(missing_ok=True)
        return 0
    whole = size = 0
    with open(part, "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                whole, size = whole + 1, size + len(line)
    with open(part, "r+b") as lines:
        lines.truncate(size)
    return whole


def _each(
    scorer: Scorer, asker: Asker, rows: Iterator, total: int | None, done: int, put: Callable[[str], None]
) -> int:
    count = done
    with bar(total or 0, "scoring", unit="row", done=done) as progress:
        rows = itertools.islice(rows, done, None)
        while piece := list(itertools.islice(rows, PIECE)):
            for number, row in piece:
                if isinstance(row, BadRow):
                    raise DataError(f"row {number} {row}; mend it or leave it out")
            records = scorer.score([asker.prompt(number, row) for number, row in piece])
            for (_, row), record in zip(piece, records):
                put(json.dumps({**row, **record}, ensure_ascii=False, default=str))
            count += len(piece)
            progress.update(len(piece))
    return count


def _to_parquet(lines: Path, out: Path) -> None:
    """The same rows; written whole or not at all. A column may be empty in one piece and whole or broken numbers in others: the
    types that hold all of them are found first."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        schema = pa.unify_schemas([table.schema for table in _tables(lines)], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise OutputError(
            f"a column of the file holds values of several types ({reason}); the scores are in {lines}, one line each: give "
            "--out the ending .jsonl"
        ) from error
    target = out.with_name(out.name + ".tmp")
    with pyarrow.parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for rows in _pieces(lines):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    target.replace(out)


def _pieces(lines: Path) -> Iterator[list[dict]]:
    with open(lines, encoding="utf-8") as found:
        while piece := [json.loads(line) for line in itertools.islice(found, PIECE)]:
            yield piece


def _tables(lines: Path) -> Iterator:
    import pyarrow as pa

    return (pa.Table.from_pylist(rows) for rows in _pieces(lines))
