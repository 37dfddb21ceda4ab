"""Ranges of a reply that are false, where the data mark them: `span` (one) or `spans` (a list), as character positions of the reply."""

from __future__ import annotations

from collections.abc import Mapping

from adapterprobe.data.cells import InvalidRow, is_missing, listed_cell
from adapterprobe.readout import Span

COLUMNS = ("span", "spans")
_STOPS = ("stop", "end")


def false_spans(row: Mapping[str, object], reply: str, honest: bool) -> tuple[Span, ...]:
    """Ranges (from, to; the second exclusive) of the reply without the blanks around it, in order, those that touch joined.

    Args:
        row: cells of a row, or of a message that carries its own label: `[4, 9]`, `[[4, 9], [20, 31]]`, or objects with `start` and
            `end` (or `stop`).
        reply: as it stands there, with the blanks around it.

    Raises:
        InvalidRow: a range that is empty, lies outside the reply or is none, or ranges of an honest reply.
    """
    given = [column for column in COLUMNS if not is_missing(row.get(column))]
    if len(given) > 1:
        raise InvalidRow("has both 'span' and 'spans'; give one")
    if not given:
        return ()
    (column,) = given
    cell = listed_cell(row[column], column)
    parts = cell if isinstance(cell, list) and not _is_range(cell) else [cell]
    found = sorted(_range(part, column, reply) for part in parts)
    if not found:
        return ()
    if honest:
        raise InvalidRow(f"'{column}' marks something false in a reply whose label is honest")
    joined = [found[0]]
    for start, stop in found[1:]:
        last = joined[-1]
        if start <= last[1]:
            joined[-1] = (last[0], max(last[1], stop))
        else:
            joined.append((start, stop))
    return tuple(joined)


def _is_range(cell: list) -> bool:
    return len(cell) == 2 and not any(
        isinstance(part, (list, tuple, Mapping)) or hasattr(part, "tolist") for part in cell
    )


def _range(part: object, column: str, reply: str) -> Span:
    if isinstance(part, Mapping):
        stop = next((part[name] for name in _STOPS if name in part), None)
        ends = [part.get("start"), stop]
    else:
        ends = list(part) if hasattr(part, "__iter__") and not isinstance(part, str) else [part]  # type: ignore[call-overload]
    if len(ends) != 2 or not all(_is_place(end) for end in ends):
        raise InvalidRow(f"'{column}' has {str(part)[:40]!r}, expected [start, end] in characters of the reply")
    start, stop = (int(end) for end in ends)  # type: ignore[arg-type]
    if start >= stop:
        raise InvalidRow(f"'{column}' has the empty range {start} to {stop}")
    if start < 0 or stop > len(reply):
        raise InvalidRow(f"'{column}' has the range {start} to {stop}, outside of the reply of {len(reply)} characters")
    before = len(reply) - len(reply.lstrip())
    own = len(reply.strip())
    start, stop = max(0, start - before), min(own, stop - before)
    if start >= stop:
        raise InvalidRow(f"'{column}' has a range of blanks around the reply alone")
    return start, stop


def _is_place(value: object) -> bool:
    whole = isinstance(value, float) and value.is_integer()
    return not isinstance(value, bool) and (hasattr(value, "__index__") or whole)
