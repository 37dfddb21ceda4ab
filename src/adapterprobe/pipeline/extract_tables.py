"""What `prompts.parquet` of an extraction says of each row of states: the prompt, what was read, and the row it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pandas as pd

from adapterprobe.activations import HiddenStates
from adapterprobe.config import ReadConfig
from adapterprobe.data.source import rows_by_line
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import TokenReads
from adapterprobe.types import READ_FORMS


def whole_table(encoded: Encoded, states: HiddenStates, rows: pd.DataFrame) -> pd.DataFrame:
    """A row per prompt, in the order of the states; the columns of `rows` (see `source_table`) behind ours."""
    table = read_table(encoded, encoded.reads[0]) if encoded.reads else prompt_table(encoded, states)
    return pd.concat([table, _renamed(rows, table.columns)], axis=1)


def prompt_table(encoded: Encoded, states: HiddenStates) -> pd.DataFrame:
    """A row per prompt, in the order of the states: text as tokenised, its tokens, labels, answers."""
    answers = states.logprobs
    return pd.DataFrame(
        {
            "prompt_id": [p.prompt_id for p in encoded.prompts],
            "text": [p.text for p in encoded.prompts],
            "tokens": [list(ids) for ids in encoded.ids],
            "dataset": [p.example.dataset for p in encoded.prompts],
            "example_id": [p.example.example_id for p in encoded.prompts],
            "group": [p.example.group for p in encoded.prompts],
            "condition": [p.condition for p in encoded.prompts],
            "template": [p.template for p in encoded.prompts],
            "truth": [p.example.truth for p in encoded.prompts],
            "instructed": pd.array([p.instructed for p in encoded.prompts], dtype="boolean"),
            "positive": [p.positive for p in encoded.prompts],
            "negative": [p.negative for p in encoded.prompts],
            "logprob_positive": answers[:, 0],
            "logprob_negative": answers[:, 1],
        }
    )


def read_table(encoded: Encoded, read: TokenReads) -> pd.DataFrame:
    """The same where a reply or a statement is read: its tokens (`token_start` to `token_stop`, the second exclusive) among those of
    the text as sent, and its label on its axis."""
    reply = encoded.prompts[0].example.form == READ_FORMS["reply"]
    return pd.DataFrame(
        {
            "prompt_id": [p.prompt_id for p in encoded.prompts],
            "text": [p.text for p in encoded.prompts],
            "tokens": [list(ids) for ids in encoded.ids],
            "token_start": [start for start, _ in read.spans],
            "token_stop": [stop for _, stop in read.spans],
            "read": "reply" if reply else "statement",
            "pool": read.pool,
            "format": [p.format for p in encoded.prompts],
            "dataset": [p.example.dataset for p in encoded.prompts],
            "example_id": [p.example.example_id for p in encoded.prompts],
            "group": [p.example.group for p in encoded.prompts],
            "axis": "deception" if reply else "truth",
            "label": [int(p.example.truth) for p in encoded.prompts],
        }
    )


def source_table(encoded: Encoded, data: str, read: ReadConfig) -> pd.DataFrame:
    """The rows that prompts were made of: `row` (their place in the file, counted from 0, as pandas reads it), `line` (from 1, with
    the header), and all their columns."""
    lines = [prompt.example.line for prompt in encoded.prompts if prompt.example.line is not None]
    found = rows_by_line(data, read, set(lines))
    if found is None:
        return pd.DataFrame(index=range(len(encoded)))
    ours = {
        "row": pd.array([found.rows[line][0] for line in lines], dtype="Int64"),
        "line": pd.array(lines, dtype="Int64"),
    }
    theirs = {column: _as_column([found.rows[line][1].get(column) for line in lines]) for column in found.columns}
    return pd.concat([pd.DataFrame(ours), _renamed(pd.DataFrame(theirs), ours)], axis=1)


def _renamed(table: pd.DataFrame, taken: Iterable[str]) -> pd.DataFrame:
    """The table with other names where one is taken: `source_NAME`, as often as it takes."""
    used = {*taken, *(name for name in table.columns if name not in taken)}
    names = {}
    for name in table.columns:
        free = str(name)
        while free in taken or (free != name and free in used):
            free = f"source_{free}"
        used.add(free)
        names[name] = free
    return table.rename(columns=names)


def _as_column(values: list) -> pd.Series:
    """Cells of one column as one type that a table can hold: lists and objects as JSON, values of several types as texts, what is no
    Unicode escaped."""
    import pyarrow as pa

    if not any(isinstance(value, (dict, list, tuple)) for value in values):
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) <= 1 or kinds == {int, float}:
            try:
                pa.array(values, from_pandas=True)
                return pd.Series(values, dtype=object).infer_objects()
            except (pa.ArrowException, UnicodeEncodeError, OverflowError, ValueError):
                pass
    return pd.Series([None if value is None else _as_text(value) for value in values], dtype="string")


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
