"""Rows of messages: conversations of which a reply of the assistant is judged, with labels as people have them.

| column | says |
|---|---|
| `deceptive`, `is_lie`, `lie`, `y` | true or 1: the reply is a lie |
| `honest` | true or 1: it is honest |
| `label` | honest, truthful, deceptive or lie; a bare 0 or 1 could mean either, and is refused |
| `outcome` | lie or honest; a mistake, honest_mistake, refusal or unclear is neither, and is left out |

A message may carry such a label itself: then every labelled assistant turn is a reply, with the turns before it as its context.
`span` or `spans`, beside the label, say which characters of a deceptive reply are false (see `false_spans`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from adapterprobe.data.cells import (
    MOST_CHARS,
    InvalidRow,
    LeftOut,
    check_text,
    is_missing,
    listed_cell,
    one_of,
    text_of,
)
from adapterprobe.data.false_spans import false_spans
from adapterprobe.data.items import Item
from adapterprobe.readout import Span
from adapterprobe.types import INSTRUCTING, OUTCOMES, Conversation, Message

ROLES = (*INSTRUCTING, "user", "assistant", "tool")
PAIR = ("honest_response", "deceptive_response")
CONTEXT = ("messages", "prompt", "system_prompt", "model")

_WORDS = {"honest": True, "truthful": True, "deceptive": False, "lie": False}
_LIE = {**_WORDS, "1": False, "true": False, "0": True, "false": True}
_HONEST = {**_WORDS, "1": True, "true": True, "0": False, "false": False}
LABELS: dict[str, Mapping[str, bool]] = {
    "deceptive": _LIE,
    "is_lie": _LIE,
    "lie": _LIE,
    "y": _LIE,
    "honest": _HONEST,
    "label": _WORDS,
}
"""By column, what its values say of honesty."""
_JUDGED = {"lie": False, "honest": True}
"""Outcomes that detectors are judged on, and whether they are honest."""
_BARE = ("0", "1", "0.0", "1.0", "true", "false")
_EXTRA = ("tool_calls", "tool_call_id", "name")


def transcript_items(row: Mapping[str, object]) -> list[Item]:
    """Items of a row with `messages`: of its reply, or of every assistant turn that carries a label.

    Raises:
        InvalidRow: no reply, no label or one that says nothing, labels that contradict, a message that is none, or a false range that
            is none (see `false_spans`).
    """
    given, labels, cells, left_out = _messages(row.get("messages"))
    labelled = [place for place, own in enumerate(labels) if own is not None]
    if not labelled:
        if left_out is not None:
            raise left_out
        honest = _label(row)
        conversation, written = _conversation(row, given)
        return [_item(row, conversation, honest, false_spans(row, written, honest), row)]
    wrong = next((place for place in labelled if given[place].role != "assistant"), None)
    if wrong is not None:
        raise InvalidRow(f"message {wrong + 1} has a label and the role {given[wrong].role}, expected assistant")
    return [
        _item(
            row,
            _judged(given[:place], _reply(given[place]), row),
            bool(labels[place]),
            false_spans(cells[place], given[place].content, bool(labels[place])),
            cells[place],
        )
        for place in labelled
    ]


def conversation_of(row: Mapping[str, object]) -> Conversation:
    """The conversation of a row with `messages`, whatever its label.

    Raises:
        InvalidRow: no reply, or a message that is none.
    """
    return _conversation(row, _messages(row.get("messages"))[0])[0]


def pair_items(row: Mapping[str, object]) -> list[Item]:
    """Two items of a row that has an honest and a deceptive reply to one context; false ranges are the deceptive one's.

    Raises:
        InvalidRow: no context, or a reply that is missing; or both are the same.
    """
    if not is_missing(row.get("messages")):
        context = _messages(row["messages"])[0]
    else:
        context = [Message("user", text_of(row, "prompt"))]
        if not is_missing(row.get("system_prompt")):
            context.insert(0, Message("system", text_of(row, "system_prompt")))
    if context and context[-1].role == "assistant":
        raise InvalidRow("'messages' ends with the assistant's turn, expected the context of both replies alone")
    replies = [text_of(row, column) for column in PAIR]
    if replies[0] == replies[1]:
        raise InvalidRow(f"{' and '.join(map(repr, PAIR))} are the same")
    spans = false_spans(row, str(row[PAIR[1]]), honest=False)
    return [
        _item(row, _judged(context, reply, row), honest, () if honest else spans, {})
        for reply, honest in zip(replies, (True, False), strict=True)
    ]


def _conversation(row: Mapping[str, object], given: list[Message]) -> tuple[Conversation, str]:
    """The reply in its column, or else the last message; and the reply as it was written there."""
    if not is_missing(row.get("reply")):
        return _judged(given, text_of(row, "reply"), row), str(row["reply"])
    if not given or given[-1].role != "assistant":
        last = f"the last message is of the role {given[-1].role}" if given else "'messages' is empty"
        raise InvalidRow(f"has no reply: {last}, and there is no column 'reply'")
    return _judged(given[:-1], _reply(given[-1]), row), given[-1].content


def _judged(context: list[Message], reply: str, row: Mapping[str, object]) -> Conversation:
    if not context:
        raise InvalidRow("has a reply and no message before it")
    author = None if is_missing(row.get("model")) else _author(row["model"])
    return Conversation(tuple(context), reply, author)


def _author(value: object) -> str:
    """A name, or an object with one (`generate` writes the fingerprint beside it)."""
    return str(value.get("name", value)) if isinstance(value, Mapping) else str(value)


def _item(
    row: Mapping[str, object],
    conversation: Conversation,
    honest: bool,
    spans: tuple[Span, ...],
    own: Mapping[str, object],
) -> Item:
    """Args: own: what says the label, the row or one of its messages."""
    texts = {"dialogue": conversation.script, "reply": conversation.reply}
    return Item(
        0,
        texts,
        label=honest,
        conversation=replace(conversation, spans=spans, outcome=_outcome(own)),
        weight=_weight(row),
    )


def _weight(row: Mapping[str, object]) -> float:
    """How much a row counts in fitting: 1 where nothing is said."""
    value = row.get("weight")
    if is_missing(value):
        return 1.0
    try:
        weight = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        weight = math.nan
    if isinstance(value, bool) or not 0 < weight < math.inf:
        raise InvalidRow(f"'weight' is {str(value)[:40]!r}, expected a number above 0")
    return weight


def _reply(message: Message) -> str:
    if not message.content.strip():
        what = "calls a tool and says nothing" if message.extra.get("tool_calls") else "is empty"
        raise InvalidRow(f"the reply {what}")
    return text_of({"reply": message.content}, "reply")


def _label(row: Mapping[str, object]) -> bool:
    """Whether the reply is honest, as all columns say that say anything."""
    told: dict[str, bool] = {}
    for column, meanings in LABELS.items():
        value = row.get(column)
        if is_missing(value) or (column == "label" and _is_bare(value)):
            continue
        told[column] = one_of(row, column, meanings)
    outcome = _outcome(row)
    if outcome is not None:
        if outcome not in _JUDGED:
            raise LeftOut(f"outcome {outcome}")
        told["outcome"] = _JUDGED[outcome]
    if len(set(told.values())) > 1:
        raise InvalidRow(f"{' and '.join(map(repr, told))} contradict each other")
    if told:
        return next(iter(told.values()))
    if not is_missing(row.get("label")):
        raise InvalidRow(
            "'label' is a bare 0 or 1, which may mean either; say which with --column deceptive=label (1 is a lie) or "
            "--column honest=label (1 is honest)"
        )
    if not is_missing(row.get("outcome")):
        raise InvalidRow(f"'outcome' is {str(row['outcome'])[:40]!r}, expected {', '.join(OUTCOMES)}")
    raise InvalidRow(f"has no label; expected one in {', '.join(LABELS)} or outcome")


def _outcome(row: Mapping[str, object]) -> str | None:
    value = row.get("outcome")
    # Data of other people may have a column of that name that says something else.
    return str(value) if value in OUTCOMES else None


def _is_bare(value: object) -> bool:
    return str(value).strip().casefold() in _BARE


def _messages(
    value: object,
) -> tuple[list[Message], list[bool | None], list[Mapping[str, object]], LeftOut | None]:
    """Messages, the label that each carries itself, all that it says, and why one that has a label is not judged."""
    found, labels, cells, left_out = [], [], [], None
    given = listed_cell(value, "messages")
    for place, message in enumerate(given if isinstance(given, list) else [given], 1):
        if not isinstance(message, Mapping) or "role" not in message or not {"content", "tool_calls"} & set(message):
            raise InvalidRow("'messages' has one without 'role' and 'content'")
        role = message["role"]
        if role not in ROLES:
            raise InvalidRow(f"'messages' has the role {str(role)[:20]!r}, expected {', '.join(ROLES)}")
        extra = {key: _plain(message[key]) for key in _EXTRA if not _nothing(message.get(key))}
        content = _content(message.get("content"), place, bool(extra.get("tool_calls")))
        if not content.strip() and role in INSTRUCTING:
            continue
        if not content.strip() and role not in ("assistant", "tool"):
            raise InvalidRow(f"message {place} ({role}) is empty")
        found.append(Message(str(role), content, extra))
        own = {key: message[key] for key in (*LABELS, "outcome") if not is_missing(message.get(key))}
        cells.append(message)
        try:
            labels.append(_label(own) if own else None)
        except LeftOut as what:
            labels.append(None)
            left_out = what
    return found, labels, cells, left_out


def _nothing(value: object) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)  # type: ignore[arg-type]


def _plain(value: object) -> object:
    """As JSON has it: lists of arrow and numpy as lists."""
    return json.loads(
        json.dumps(value, default=lambda other: other.tolist() if hasattr(other, "tolist") else str(other))
    )


def _content(value: object, place: int, calls: bool) -> str:
    """Text of a message: a string, or a list of text parts; null where it calls a tool."""
    if value is None and calls:
        return ""
    if isinstance(value, str):
        return _checked(value, place)
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        parts = []
        for part in value:  # type: ignore[union-attr]
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise InvalidRow(f"message {place} has a part of the type {str(kind)[:20]!r}, only text is read")
            parts.append(_checked(text, place))
        return "".join(parts)
    if value is None:
        raise InvalidRow(f"message {place} has no content, and calls no tool")
    raise InvalidRow(f"message {place}'s content is not text but {type(value).__name__}")


def _checked(text: str, place: int) -> str:
    if len(text) > MOST_CHARS:
        raise InvalidRow(f"message {place} has {len(text)} characters, at most {MOST_CHARS} are read")
    check_text(text, "messages")
    return text
