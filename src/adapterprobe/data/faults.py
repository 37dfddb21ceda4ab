"""Rows that cannot be used: every one by its line, counted, by reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapterprobe.data.cells import InvalidRow

SHOWN_LINES = 12
"""So many line numbers of one kind of fault are named; all are counted."""


@dataclass
class RowErrors:
    """Rows that cannot be used, by reason."""

    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, line: int, reason: InvalidRow) -> None:
        self.lines.setdefault(str(reason), []).append(line)

    @property
    def count(self) -> int:
        return sum(map(len, self.lines.values()))

    def __str__(self) -> str:
        parts = []
        for reason, lines in self.lines.items():
            more = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
            parts.append(f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:SHOWN_LINES]))}{more}: {reason}")
        return "; ".join(parts)
