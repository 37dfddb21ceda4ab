"""What a row may look like: three shapes, known by their columns, each read into an `Item`.

| shape | columns |
|---|---|
| statement | `statement`, `label` (0, 1, true, false) |
| question | `question`, `choices`, `answer` (the text, its index or letter), and `context` if there is one |
| chat | `messages` (role and content), `reply`, `label` (honest, deceptive) |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from adapterprobe.data.items import CLAIM_FORMS, QUESTION_FORMS, Item
from adapterprobe.errors import DataError
from adapterprobe.hints import nearest
from adapterprobe.small_files import parse_json

TRUTHS = {"1": True, "true": True, "0": False, "false": False}
HONEST = {"honest": True, "deceptive": False}
MOST_CHARS = 1_000_000
"""Characters of one text."""
NOTHING = ("nan", "null", "n/a", "#n/a")
ROLES = ("system", "user", "assistant")
_SMALL = re.compile(
    r"^(The|A|An|This|That|These|Those|It|There|In|On|At|Some|All|Every|Each|No|Most|Many|He|She|They|We) "
)


class InvalidRow(Exception):
    """Why one row cannot be used."""


@dataclass(frozen=True)
class Shape:
    """A kind of row."""

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    forms: tuple[str, ...]
    read: Callable[[Mapping[str, object]], Item]
    """From a row by canonical column names to an item without line and group; raises `InvalidRow`."""


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


def _one_of(row: Mapping[str, object], column: str, known: Mapping[str, bool]) -> bool:
    value = row.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise InvalidRow(f"'{column}' is missing")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = (_number(value, column) if isinstance(value, int) else str(value)).strip().casefold()
    if key.endswith(".0"):
        key = key[:-2]
    if key not in known:
        raise InvalidRow(f"'{column}' is {str(value)[:40]!r}, expected {' or '.join(known)}")
    return known[key]


def as_clause(sentence: str) -> str:
    """A sentence so that it can stand inside another: no closing stop, a small first letter where that is sure.

    >>> as_clause("The city of Lyon is in France."), as_clause("Lyon is in France")
    ('the city of Lyon is in France', 'Lyon is in France')
    """
    sentence = sentence.strip()
    if sentence.endswith(".") and not sentence.endswith(".."):
        sentence = sentence[:-1].rstrip()
    return _SMALL.sub(lambda found: found.group().lower(), sentence)


def _statement(row: Mapping[str, object]) -> Item:
    statement = text_of(row, "statement")
    if not any(letter.isalnum() for letter in statement):
        raise InvalidRow("'statement' has no words")
    return Item(0, {"statement": statement}, label=_one_of(row, "label", TRUTHS))


def _listed(value: object, column: str) -> list | dict:
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


def _number(value: int | float, column: str) -> str:
    """A number as text.

    Raises:
        InvalidRow: it is not finite, or has more digits than a number that people write.
    """
    if (isinstance(value, float) and not math.isfinite(value)) or abs(value) >= 10**100:
        raise InvalidRow(f"'{column}' holds a number that is not finite, or has more than 100 digits")
    return str(value)


def _choices(row: Mapping[str, object]) -> tuple[list[str], list[str] | None]:
    """(texts, labels or None)."""
    given = _listed(row.get("choices"), "choices")
    labels = None
    if isinstance(given, dict):
        if not {"text", "label"} <= set(given):
            raise InvalidRow("'choices' is an object without 'text' and 'label'")
        labels = [str(label).strip() for label in _listed(given["label"], "choices")]
        given = _listed(given["text"], "choices")
        if len(labels) != len(given):
            raise InvalidRow(f"'choices' has {len(given)} texts and {len(labels)} labels")
    texts = []
    for place, choice in enumerate(given):
        if isinstance(choice, (int, float)) and not isinstance(choice, bool):
            choice = _number(choice, "choices")
        texts.append(text_of({"choices": choice}, "choices"))
        if texts[-1] in texts[:place]:
            raise InvalidRow(f"'choices' has {texts[-1]!r} twice")
    if len(texts) < 2:
        raise InvalidRow(f"'choices' has {len(texts)}, expected at least 2")
    return texts, labels


def right_choice(answer: object, texts: list[str], labels: list[str] | None) -> int:
    """Which choice the answer names: by its label where choices have labels; else a number is an index from 0, and text is
    a choice's text, its index or its letter.

    Raises:
        InvalidRow: it names none, or one choice by its text and another by its index or letter.
    """
    if answer is None or answer == "" or (isinstance(answer, float) and math.isnan(answer)):
        raise InvalidRow("'answer' is missing")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    key = (_number(answer, "answer") if isinstance(answer, int) else str(answer)).strip()
    if labels is not None and key in labels:
        return labels.index(key)
    meant = []
    if not isinstance(answer, bool):
        if key in texts and not isinstance(answer, int):
            meant.append(texts.index(key))
        if labels is None and key.isdecimal() and key.isascii() and len(key) <= 6 and int(key) < len(texts):
            meant.append(int(key))
        if labels is None and len(key) == 1 and 0 <= ord(key.upper()) - ord("A") < len(texts):
            meant.append(ord(key.upper()) - ord("A"))
    if len(set(meant)) > 1:
        raise InvalidRow(
            f"'answer' is {key[:40]!r}, the text of one choice and the index or letter of another; give choices as an object "
            "with text and label"
        )
    if not meant:
        raise InvalidRow(f"'answer' is {key[:40]!r}, which names none of the {len(texts)} choices")
    return meant[0]


def _question(row: Mapping[str, object]) -> Item:
    query = text_of(row, "question")
    if row.get("context") not in (None, ""):
        query = f"{text_of(row, 'context')}\n{query}"
    texts, labels = _choices(row)
    right = right_choice(row.get("answer"), texts, labels)
    return Item(0, {"query": query}, answers=(texts[right], *texts[:right], *texts[right + 1 :]))


def _chat(row: Mapping[str, object]) -> Item:
    messages = _listed(row.get("messages"), "messages")
    turns = []
    for message in messages if isinstance(messages, list) else [messages]:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise InvalidRow("'messages' has one without 'role' and 'content'")
        if message["role"] not in ROLES:
            raise InvalidRow(f"'messages' has the role {str(message['role'])[:20]!r}, expected {', '.join(ROLES)}")
        turns.append((str(message["role"]), text_of({"messages": message["content"]}, "messages")))
    if row.get("reply") in (None, "") and turns and turns[-1][0] == "assistant":
        reply = turns.pop()[1]
    else:
        reply = text_of(row, "reply")
    if not turns:
        raise InvalidRow("'messages' is empty")
    dialogue = "\n".join(f"{role.capitalize()}: {text}" for role, text in turns)
    return Item(0, {"dialogue": dialogue, "reply": reply}, label=_one_of(row, "label", HONEST))


SHAPES = (
    Shape("statement", ("statement", "label"), (), CLAIM_FORMS["statement"], _statement),
    Shape("question", ("question", "choices", "answer"), ("context",), QUESTION_FORMS, _question),
    Shape("chat", ("messages", "label"), ("reply",), CLAIM_FORMS["reply"], _chat),
)
CANONICAL = tuple(dict.fromkeys(column for shape in SHAPES for column in (*shape.needs, *shape.may)))


def find_shape(name: str, columns: Iterable[str], mapping: Mapping[str, str]) -> tuple[Shape, dict[str, str]]:
    """Which shape rows with these columns have, and which column is what.

    Args:
        columns: those of the data.
        mapping: canonical name to the data's own, where they differ.

    Raises:
        DataError: a mapped name that is not a column or not one of ours, or columns that make no shape: the nearest
            shape, what it lacks and the nearest names are given.
    """
    columns = list(columns)
    for ours, theirs in mapping.items():
        if ours not in CANONICAL:
            raise DataError(
                f"--column {ours}={theirs}: no column is called '{ours}' here{nearest(ours, CANONICAL)}; there are "
                f"{', '.join(CANONICAL)}"
            )
        if theirs not in columns:
            raise DataError(
                f"{name} has no column '{theirs}'{nearest(theirs, columns)}; it has {', '.join(columns[:30])}"
            )
    place = {ours: ours for ours in CANONICAL if ours in columns} | dict(mapping)
    for shape in SHAPES:
        if all(ours in place for ours in shape.needs):
            # What a row may have need not be in the first rows that were looked at.
            return shape, {ours: place.get(ours, ours) for ours in (*shape.needs, *shape.may)}
    closest = max(SHAPES, key=lambda shape: sum(ours in place for ours in shape.needs))
    missing = [ours for ours in closest.needs if ours not in place]
    free = [column for column in columns if column not in place.values()]
    hints = "".join(nearest(ours, free) for ours in missing[:1])
    raise DataError(
        f"{name} has the columns {', '.join(columns[:30]) or '(none)'}; as {closest.name} rows it lacks "
        f"{', '.join(missing)}{hints}; expected {' or '.join(' + '.join(shape.needs) for shape in SHAPES)}; say which "
        f"column is which with --column {missing[0]}=NAME"
    )
