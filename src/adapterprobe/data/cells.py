"""Cells of a row, read strictly: whatever is not what it must be is a reason not to use the row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from adapterprobe.small_files import parse_json

MOST_CHARS = 1_000_000
"""Characters of one text."""
NOTHING = ("nan", "null", "n/a", "#n/a")


class InvalidRow(Exception):
    """Why one row cannot be used."""


class LeftOut(Exception):
    """What a row is that has nothing wrong with it and is not judged: counted by this word."""


def is_missing(value: object) -> bool:
    """Whether a cell says nothing: null, not a number, or an empty text."""
    if value is None or isinstance(value, str):
        return not value
    return isinstance(value, float) and math.isnan(value)


def text_of(row: Mapping[str, object], column: str) -> str:
    """A cell that must hold text.

    Raises:
        InvalidRow: it is missing, empty, not text, or not valid Unicode.
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise InvalidRow(f"'{column}' is missing")
    if not isinstance(value, str):
        raise InvalidRow(f"'{column}' is not text but {type(value).__name__}")
    if len(value) > MOST_CHARS:
        raise InvalidRow(f"'{column}' has {len(value)} characters, at most {MOST_CHARS} are read")
    check_text(value, column)
    if not value.strip():
        raise InvalidRow(f"'{column}' is empty")
    if column in ("statement", "question", "reply") and value.strip().casefold() in NOTHING:
        raise InvalidRow(f"'{column}' is {value.strip()!r}, which stands for a missing value")
    return value.strip()


def check_text(value: str, column: str) -> None:
    """Raises `InvalidRow` where bytes were not UTF-8 (they are read as lone surrogates) or a NUL is inside."""
    if "\x00" in value:
        raise InvalidRow(f"'{column}' holds a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRow(f"'{column}' is not UTF-8") from None


def one_of(row: Mapping[str, object], column: str, known: Mapping[str, bool]) -> bool:
    """What a cell means that must hold one of the words of `known` (in any case; numbers as text).

    Raises:
        InvalidRow: it is missing, or another word.
    """
    value = row.get(column)
    if is_missing(value):
        raise InvalidRow(f"'{column}' is missing")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = (number_text(value, column) if isinstance(value, int) else str(value)).strip().casefold()
    if key.endswith(".0"):
        key = key[:-2]
    if key not in known:
        raise InvalidRow(f"'{column}' is {str(value)[:40]!r}, expected {' or '.join(known)}")
    return known[key]


def listed_cell(value: object, column: str) -> list | dict:
    """A list or an object; as text, JSON or parts between bars."""
    if isinstance(value, str):
        check_text(value, column)
        text = value.strip()
        if text.startswith(("[", "{")):
            try:
                value = parse_json(text)
            except ValueError as error:
                raise InvalidRow(f"'{column}' is not JSON ({str(error)[:80]})") from None
        else:
            value = text.split("|")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, str)):
        return list(value)
    raise InvalidRow(
        f"'{column}' is missing" if value is None else f"'{column}' is not a list but {type(value).__name__}"
    )


def number_text(value: int | float, column: str) -> str:
    """A number as text.

    Raises:
        InvalidRow: it is not finite, or has more digits than a number that people write.
    """
    if (isinstance(value, float) and not math.isfinite(value)) or abs(value) >= 10**100:
        raise InvalidRow(f"'{column}' holds a number that is not finite, or has more than 100 digits")
    return str(value)
