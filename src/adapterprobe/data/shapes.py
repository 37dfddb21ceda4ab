"""What a row may look like: four shapes, known by their columns, each read into an `Item` or several.

| shape | columns |
|---|---|
| statement | `statement`, `label` (0, 1, true, false), and `polarity` (affirmative or 1, negated or -1) if there is one |
| question | `question`, `choices`, `answer` (the text, its index or letter), and `context` if there is one |
| pair | `honest_response`, `deceptive_response`, and the context as `messages`, or `prompt` and `system_prompt` |
| chat | `messages` (role and content), `reply` if it is not the last of them, and a label (see `transcripts`) |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from adapterprobe.data.cells import InvalidRow, is_missing, listed_cell, number_text, one_of, text_of
from adapterprobe.data.false_spans import COLUMNS as SPANS
from adapterprobe.data.items import QUESTION_FORMS, STATEMENT_FORMS, TRANSCRIPT_FORMS, Item
from adapterprobe.data.transcripts import CONTEXT, LABELS, PAIR, pair_items, transcript_items
from adapterprobe.errors import DataError
from adapterprobe.hints import nearest

TRUTHS = {"1": True, "true": True, "0": False, "false": False}
POLARITIES = {"1": True, "affirmative": True, "-1": False, "0": False, "negated": False}
_SMALL = re.compile(
    r"^(The|A|An|This|That|These|Those|It|There|In|On|At|Some|All|Every|Each|No|Most|Many|He|She|They|We) "
)


@dataclass(frozen=True)
class Shape:
    """A kind of row."""

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    forms: tuple[str, ...]
    read: Callable[[Mapping[str, object]], Item | list[Item]]
    """From a row by canonical column names to an item without line and group, or to several; raises `InvalidRow`."""
    transcript: bool = False
    """Whether rows are conversations of which a reply is judged."""
    one_of: tuple[str, ...] = ()
    """Columns of which one at least is needed too."""

    def made_of(self, columns: Collection[str]) -> bool:
        """Whether there is all that it needs."""
        return all(ours in columns for ours in self.needs) and (
            not self.one_of or any(ours in columns for ours in self.one_of)
        )


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
    negated = False if is_missing(row.get("polarity")) else not one_of(row, "polarity", POLARITIES)
    return Item(0, {"statement": statement}, label=one_of(row, "label", TRUTHS), negated=negated)


def _choices(row: Mapping[str, object]) -> tuple[list[str], list[str] | None]:
    """(texts, labels or None)."""
    given = listed_cell(row.get("choices"), "choices")
    labels = None
    if isinstance(given, dict):
        if not {"text", "label"} <= set(given):
            raise InvalidRow("'choices' is an object without 'text' and 'label'")
        labels = [str(label).strip() for label in listed_cell(given["label"], "choices")]
        given = listed_cell(given["text"], "choices")
        if len(labels) != len(given):
            raise InvalidRow(f"'choices' has {len(given)} texts and {len(labels)} labels")
    texts = []
    for place, choice in enumerate(given):
        if isinstance(choice, (int, float)) and not isinstance(choice, bool):
            choice = number_text(choice, "choices")
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
    if is_missing(answer):
        raise InvalidRow("'answer' is missing")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    key = (number_text(answer, "answer") if isinstance(answer, int) else str(answer)).strip()
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


SHAPES = (
    Shape("statement", ("statement", "label"), ("polarity",), STATEMENT_FORMS, _statement),
    Shape("question", ("question", "choices", "answer"), ("context",), QUESTION_FORMS, _question),
    Shape(
        "pair",
        PAIR,
        (*CONTEXT, *SPANS, "weight"),
        TRANSCRIPT_FORMS,
        pair_items,
        transcript=True,
        one_of=("messages", "prompt"),
    ),
    Shape(
        "chat",
        ("messages",),
        ("reply", "model", *LABELS, "outcome", *SPANS, "weight"),
        TRANSCRIPT_FORMS,
        transcript_items,
        transcript=True,
    ),
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
        if shape.made_of(place):
            # What a row may have need not be in the first rows that were looked at.
            return shape, {ours: place.get(ours, ours) for ours in (*shape.needs, *shape.may)}
    if all(ours in place for ours in PAIR):
        raise DataError(
            f"{name} has both replies of a pair and no context; expected 'messages', or 'prompt' (and 'system_prompt'); say which column is "
            "which with --column prompt=NAME"
        )
    closest = max(SHAPES, key=lambda shape: sum(ours in place for ours in shape.needs))
    missing = [ours for ours in closest.needs if ours not in place]
    free = [column for column in columns if column not in place.values()]
    hints = "".join(nearest(ours, free) for ours in missing[:1])
    raise DataError(
        f"{name} has the columns {', '.join(columns[:30]) or '(none)'}; as {closest.name} rows it lacks "
        f"{', '.join(missing)}{hints}; expected {' or '.join(' + '.join(shape.needs) for shape in SHAPES)}; say which "
        f"column is which with --column {missing[0]}=NAME"
    )
