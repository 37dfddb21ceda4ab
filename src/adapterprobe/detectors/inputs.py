"""What people give a detector (texts, conversations, tables) as the prompts that it was judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adapterprobe.data.cells import InvalidRow, check_text
from adapterprobe.data.shapes import as_clause
from adapterprobe.data.transcripts import conversation_of
from adapterprobe.detectors.bundle_record import FORMAT_FILE, Prompting
from adapterprobe.errors import DataError
from adapterprobe.prompts.followups import FollowUp
from adapterprobe.prompts.formats import render
from adapterprobe.prompts.read_prompts import reply_prompt, statement_prompt
from adapterprobe.readout import ReadoutConfig
from adapterprobe.terminal import shortened
from adapterprobe.types import READ_FORMS, Example, Prompt, Template

Inputs = Sequence[Any] | pd.DataFrame | str
COLUMNS = {"query": ("query", "question"), "answer": ("answer",), "statement": ("statement",)}


def rows_of(inputs: Inputs, read: ReadoutConfig) -> list[dict[str, Any]]:
    """Rows with the columns that prompts are made of.

    Args:
        inputs: texts (statements; where replies are read, nobody can tell a reply from a text alone), conversations (lists of
            messages, or rows with `messages`), rows, or a table of them.

    Raises:
        DataError: something else, by its place.
    """
    if isinstance(inputs, pd.DataFrame):
        return [{str(k): v for k, v in row.items()} for row in inputs.to_dict("records")]
    if isinstance(inputs, (str, Mapping)) or (
        isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Mapping) and "role" in inputs[0]
    ):
        inputs = [inputs]  # a single one
    found: list[dict[str, Any]] = []
    for place, given in enumerate(inputs):
        if isinstance(given, str):
            if read.what == "reply":
                raise DataError(
                    f"input {place} is a text, and this detector reads replies; give conversations: [[{{'role': 'user', 'content': ...}}, "
                    "{'role': 'assistant', 'content': ...}], ...]"
                )
            found.append({"statement": given})
        elif isinstance(given, Mapping):
            found.append({str(key): value for key, value in given.items()})
        elif isinstance(given, Sequence) and all(isinstance(message, Mapping) for message in given):
            found.append({"messages": list(given)})
        else:
            raise DataError(f"input {place} is {shortened(given)}, expected a text, a conversation, or a row")
    return found


@dataclass(frozen=True)
class InputPrompter:
    """Puts rows as a detector's record says.

    Args:
        folder: of the bundle, where its format's file is.
    """

    prompting: Prompting
    read: ReadoutConfig
    tokenizer: Any
    context_length: int | None
    folder: Path | None = None

    @property
    def form(self) -> str:
        """The format as `render` takes it."""
        if self.prompting.format == FORMAT_FILE and self.folder is not None:
            return str(self.folder / FORMAT_FILE)
        return self.prompting.format

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row must have, by the names that come first."""
        if self.read.what != "answer":
            return ("messages",) if self.read.what == "reply" else ("statement",)
        return tuple(COLUMNS.get(field, (field,))[0] for field in sorted(self._template.fields))

    @property
    def _template(self) -> Template:
        return Template("packed", self.prompting.form, self.prompting.pattern or "")

    def prompt(self, number: int, row: Mapping[str, Any]) -> Prompt:
        """The prompt of one row.

        Raises:
            DataError: the row lacks what is read, or is no text.
        """
        if self.read.what != "answer":
            return self._read(number, row)
        if "prompt" in row:
            return self._answered(number, _text(row, ("prompt",), number), _text(row, ("prompt",), number))
        texts = {}
        for field in self._template.fields:
            text = _text(row, COLUMNS.get(field, (field,)), number)
            texts[field] = as_clause(text) if field == "statement" and not self.prompting.exact else text
        positive, negative = self.prompting.positive, self.prompting.negative
        example = Example("packed", "scored", "packed", self.prompting.form, positive, negative, True, texts)
        turn = self._template.turn(example)
        written = render(self.form, self.prompting.demonstrations, turn, self.tokenizer, self.prompting.system)
        return self._answered(number, turn, written)

    def _answered(self, number: int, turn: str, text: str) -> Prompt:
        positive, negative = self.prompting.positive, self.prompting.negative
        return stored_prompt(f"row {number}", self.prompting, self.read, text, None, turn, positive, negative)

    def _read(self, number: int, row: Mapping[str, Any]) -> Prompt:
        asked = self.prompting.ask
        follow_up = None if asked is None else FollowUp("asked", asked, "judge", self.prompting.yes)
        talk, texts = None, {}
        if self.read.what == "reply":
            try:
                talk = conversation_of(row)
            except InvalidRow as error:
                raise DataError(
                    f"row {number}: {error}; this detector reads replies: give conversations that end with the assistant's turn"
                ) from error
        else:
            texts = {"statement": _text(row, ("statement", "text"), number)}
        form = READ_FORMS[self.read.what]
        example = Example(f"row {number}", "scored", f"row {number}", form, "Yes", "No", True, texts, number, talk)
        if self.read.what == "statement":
            return statement_prompt(example, "score", follow_up)
        try:
            made, _ = reply_prompt(
                example, "score", self.read, self.form, self.tokenizer, follow_up, self.context_length
            )
        except DataError as error:
            raise DataError(f"row {number}: {error}") from error
        return made


def stored_prompt(
    name: str,
    prompting: Prompting,
    read: ReadoutConfig,
    text: str,
    span: tuple[int, int] | None,
    turn: str,
    positive: str,
    negative: str,
) -> Prompt:
    """A prompt whose text stands fast."""
    form = READ_FORMS.get(read.what, "question")
    example = Example(name, "scored", name, form, positive, negative, True, {})
    return Prompt(
        prompt_id=hashlib.sha256(text.encode()).hexdigest()[:16],
        example=example,
        split="score",
        condition=prompting.condition,
        template="stored",
        format=prompting.format,
        system_prompt=None,
        demo_set="stored",
        demo_groups=(),
        shots=len(prompting.demonstrations),
        turn=turn,
        text=text,
        positive=positive,
        negative=negative,
        read=span,
    )


def _text(row: Mapping[str, Any], names: Sequence[str], number: int) -> str:
    text = next((row[name] for name in names if name in row), None)
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"row {number}: '{names[0]}' is {shortened(text)}, expected a text; it has {', '.join(map(str, row)) or 'nothing'}"
        )
    return encodable(text, f"row {number}", names[0])


def encodable(text: str, place: str, column: str) -> str:
    """The same text.

    Raises:
        DataError: it has characters that no tokenizer takes (half a surrogate pair, NUL).
    """
    try:
        check_text(text, column)
    except InvalidRow as error:
        raise DataError(f"{place}: {error}") from error
    return text
