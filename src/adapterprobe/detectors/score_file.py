"""Score a file of any length, a piece at a time, going on where a stopped scoring was."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from adapterprobe.cache import file_digest, write_atomic
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_run_config
from adapterprobe.data.cells import InvalidRow, check_text, text_of
from adapterprobe.data.faults import RowErrors
from adapterprobe.data.readers import open_file
from adapterprobe.data.transcripts import conversation_of
from adapterprobe.detectors.bundle_record import RECORD, read_record
from adapterprobe.detectors.detector import PIECE, Detector, scores_of
from adapterprobe.detectors.hub import HUB_ID, fetched
from adapterprobe.detectors.row_prompts import RowPrompter, asked_columns, is_answer
from adapterprobe.detectors.score_pieces import OpenScorer, Piece, PieceScorer, RowScorer, Scoring, scored_here
from adapterprobe.detectors.score_rows import rows_of_table
from adapterprobe.detectors.scorer import OOD_P_VALUE, Scorer
from adapterprobe.errors import ConfigError, DataError, OutputError
from adapterprobe.models.placement import DeviceMap
from adapterprobe.output_folder import MARK
from adapterprobe.output_lock import locked_file
from adapterprobe.progress import bar, say
from adapterprobe.small_files import as_path
from adapterprobe.terminal import echo, json_line, shortened
from adapterprobe.types import Prompt

WRITTEN = (".jsonl", ".parquet")


def score_file(
    run: str | Path,
    file: str | Path,
    out: str | Path | None,
    condition: str | None = None,
    shown: TextIO | None = None,
    trust_remote_code: bool = False,
    model: str | None = None,
    verify: bool = True,
    device: str = "auto",
    scoring: Scoring = scored_here,
) -> int:
    """Score every row of a file with every detector of a run, or with a bundle's.

    Args:
        run: folder of a finished run, or of a bundle; or `OWNER/NAME` of a bundle on the hub.
        file: JSON lines, CSV, TSV or Parquet with a column `prompt`, or what the run's wordings place (`statement`; `question` and
            `answer`). Columns `condition`, `positive` and `negative` (answers in words) are used where they are there.
        out: a .jsonl or .parquet file; None: lines go to `shown`.
        condition: what rows are pushed to that do not say; default: the first of the run.
        trust_remote_code: run code that comes with the model, if it is what the run was made with.
        model, verify: of a bundle, see `Detector.load`.
        device: see `load_model`; auto: of a run, where it was made.
        scoring: who scores: this process, or workers (see `scored_on_ray`).

    Returns:
        Rows scored.

    Raises:
        ConfigError: `model` or `verify` for a run, which has a model of its own and no golden rows.
        DataError, OutputError, ModelError: see `Scorer` and `RowPrompter`; rows that cannot be read are named, all of them, before any is
            scored.
    """
    file = as_path(file, DataError)
    run = _found(run)
    source = _source(run, trust_remote_code, model, verify, device)
    columns, own_answers = _check_rows(file, source.reading, source.conditions)
    if out is not None and Path(out).suffix.casefold() not in WRITTEN:
        raise OutputError(f"--out {out}: expected a file that ends with {' or '.join(WRITTEN)}")
    if out is not None and as_path(out, OutputError).exists():
        if _tidied(as_path(out, OutputError)):
            say(f"{out} is finished; nothing to do (remove it to score again)")
            return _rows_in(Path(out))
        raise OutputError(f"--out {out} is there already; remove it, or choose another")
    opened = functools.partial(_opened, run, trust_remote_code, model, verify, device, columns, own_answers, condition)
    if out is None:
        return _scored(scoring, opened, source.device, file, 0, lambda line: echo(line, shown))
    out = as_path(out, OutputError)
    part, mark = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(part, out) as lines:
            made = Path(run) / source.mark
            described = {
                "run": str(Path(run).resolve()),
                "made": file_digest(made) if made.is_file() else None,
                "file": file_digest(file),
                "condition": condition,
                "model": model,
            }
            done = _done(part, mark, described)
            write_atomic(mark, json.dumps(described))
            count = _scored(scoring, opened, source.device, file, done, lambda line: _put(lines, line))
            if out.suffix.casefold() == ".parquet":
                _to_parquet(part, out)
                part.unlink()
            else:
                part.replace(out)
            mark.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error}); what was scored is kept: free some space and run the same command again"
        ) from error
    return count


def _tidied(out: Path) -> bool:
    """Whether a scoring was stopped after its file was whole, and before its marks were gone; they are taken away."""
    part, mark = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")
    stopped = mark.is_file()
    mark.unlink(missing_ok=True)
    if stopped:
        part.unlink(missing_ok=True)
    return stopped


def _rows_in(out: Path) -> int:
    if out.suffix.casefold() == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(out).metadata.num_rows
    with open(out, "rb") as lines:
        return sum(1 for _ in lines)


@dataclass(frozen=True)
class _Source:
    """What rows are scored by: a run's detectors, or a bundle."""

    reading: str
    """What is read of rows (see `ReadoutConfig`)."""
    conditions: Sequence[str] | None
    """What prompts may push to; None: nobody asks."""
    mark: str
    """The file by which it is told whether it is still the same."""
    device: DeviceMap
    """Where its model goes."""
    open: Callable[[list[str], bool, str | None], RowScorer]
    """From the file's columns, whether they hold the answers, and the condition."""


def _source(run: Path, trust_remote_code: bool, model: str | None, verify: bool, device: str) -> _Source:
    source = _bundle(run, trust_remote_code, model, verify, device)
    if source is not None:
        return source
    if model is not None or not verify:
        raise ConfigError(
            f"{run} is no packed detector, and --model and --no-verify are for one; a run is scored on its own model (to take a detector to "
            "another: adapterprobe pack)"
        )
    return _run(run, trust_remote_code, device)


def _opened(
    run: Path,
    trust_remote_code: bool,
    model: str | None,
    verify: bool,
    device: str,
    columns: list[str],
    own_answers: bool,
    condition: str | None,
) -> RowScorer:
    """What scores, made of what can be sent to another process."""
    return _source(run, trust_remote_code, model, verify, device).open(columns, own_answers, condition)


def _found(run: str | Path) -> Path:
    """The folder of a run or of a bundle, which is fetched where it is one of the hub. A folder that is not there, beside others that are, is
    a misspelt one."""
    path = as_path(run, OutputError)
    if not path.exists() and not path.parent.is_dir() and HUB_ID.fullmatch(str(run)):
        return fetched(str(run))
    return path


def _run(run: str | Path, trust_remote_code: bool, device: str) -> _Source:
    config = _config_of(run)
    reading = "answer" if config is None else config.read.what

    def opened(columns: list[str], own_answers: bool, condition: str | None):
        scorer = Scorer(run, trust_remote_code, device=device)
        prompter = RowPrompter(
            scorer.config,
            scorer.choices,
            columns,
            condition or scorer.config.elicit.conditions[0],
            scorer.lm.tokenizer,
            own_answers,
            scorer.lm.context_length,
        )
        return prompter.prompt, scorer.score

    asked = list(config.elicit.conditions) if config is not None and reading == "answer" else None
    made_on = "auto" if config is None else config.model.device
    return _Source(reading, asked, MARK, made_on if device == "auto" else device, opened)


def _bundle(path: Path, trust_remote_code: bool, model: str | None, verify: bool, device: str) -> _Source | None:
    """A bundle; None where the folder is none."""
    if not (path / RECORD).is_file():
        return None
    record = read_record(path)

    def opened(columns: list[str], own_answers: bool, condition: str | None):
        if condition not in (None, record.prompting.condition):
            raise ConfigError(
                f"the detector {record.name} was packed for the condition {record.prompting.condition}, got '{condition}'; pack the run with "
                f"--condition {condition}"
            )
        detector = Detector.load(path, model, verify=verify, device=device, trust_remote_code=trust_remote_code)
        if "prompt" not in columns and (lacking := [c for c in detector.prompter.columns if c not in columns]):
            raise DataError(
                f"the file has the columns {', '.join(columns)}; {record.name} needs {' and '.join(detector.prompter.columns)} ({lacking[0]} is missing)"
            )
        return detector.prompter.prompt, lambda prompts: detector_records(detector, prompts)

    return _Source(record.read.what, None, RECORD, device, opened)


def detector_records(detector: Detector, prompts: Sequence[Prompt]) -> list[dict]:
    """Scores of prompts in the form of a run's (see `Scorer.score`), by one detector alone."""
    (table,) = scores_of([detector], prompts)
    value = detector.threshold.value
    records = []
    for row in rows_of_table(table):
        p = row["novelty_p"]
        told = {
            "score": row["score"],
            "threshold": value,
            "above": row["decision"],
            "probability": row["probability"],
            "answer": row["answer"],
        }
        records.append(
            {
                "detectors": {detector.record.name: told},
                "novelty_p": p,
                "unlike": None if p is None else p <= OOD_P_VALUE,
            }
        )
    return records


def _config_of(run: str | Path) -> RunConfig | None:
    """The run's configuration; None where it cannot be read (`Scorer` says why)."""
    try:
        return read_run_config(run)[0]
    except ConfigError:
        return None


def _check_rows(file: Path, reading: str, conditions: Sequence[str] | None) -> tuple[list[str], bool]:
    """(the file's columns, whether its columns `positive` and `negative` are the two answers: words in every row that has them).
    Every row is read once before anything is scored: the last one may be broken too.

    Raises:
        DataError: rows that cannot be read, or lack what is asked (all of them, by line).
    """
    source = open_file(file)
    asked = asked_columns(source.columns, reading)
    faults = RowErrors()
    given = in_words = 0
    for line, row in source.rows:
        try:
            if isinstance(row, InvalidRow):
                raise row
            for column, value in row.items():
                if isinstance(value, str):
                    check_text(value, str(column))
            for column in asked:
                text_of(row, column)
            if reading == "reply":
                conversation_of(row)
            condition = row.get("condition")
            if conditions and condition not in (None, "", *conditions):
                raise InvalidRow(f"'condition' is {shortened(condition)}, expected one of {', '.join(conditions)}")
            answers = [row.get(name) for name in ("positive", "negative")]
            if any(answer not in (None, "") for answer in answers):
                given += 1
                in_words += all(map(is_answer, answers))
        except InvalidRow as reason:
            faults.add(line, reason)
    if faults.count:
        raise DataError(
            f"{file.name}: {faults.count} of its rows cannot be scored ({faults}); mend them or take them out (nothing was scored)"
        )
    if given and in_words < given:
        say(
            f"{file.name}: columns 'positive' and 'negative' do not hold words in every row, so they are not taken for the two answers; those "
            "of the run are asked for"
        )
    return source.columns, bool(given) and in_words == given


def _scored(
    scoring: Scoring, opened: OpenScorer, device: DeviceMap, file: Path, done: int, put: Callable[[str], None]
) -> int:
    rows = open_file(file)
    with scoring(opened, device) as scorer:
        return _each(scorer, rows.rows, rows.total, done, put)


def _put(lines: IO[str], line: str) -> None:
    lines.write(line + "\n")
    lines.flush()


def _done(part: Path, mark: Path, described: dict) -> int:
    """Rows that an earlier, stopped scoring of the same wrote whole; a torn last line is taken off."""
    try:
        same = json.loads(mark.read_text("utf-8")) == described
    except (OSError, ValueError):
        same = False
    whole = size = 0
    if same:
        with open(part, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    whole, size = whole + 1, size + len(line)
    with open(part, "r+b") as lines:
        lines.truncate(size)
    return whole


def _each(scorer: PieceScorer, rows: Iterator, total: int | None, done: int, put: Callable[[str], None]) -> int:
    count = done
    with bar(total or 0, "scoring", unit="row", done=done) as progress:
        for piece, records in scorer(_in_pieces(itertools.islice(rows, done, None))):
            for (_, row), record in zip(piece, records, strict=True):
                put(json_line({**row, **record}))
            count += len(piece)
            progress.update(len(piece))
    return count


def _in_pieces(rows: Iterator) -> Iterator[Piece]:
    while piece := list(itertools.islice(rows, PIECE)):
        for number, row in piece:
            if isinstance(row, InvalidRow):
                raise DataError(f"row {number} {row}; mend it or leave it out")
        yield piece


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
