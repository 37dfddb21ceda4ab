"""What a check found: how bad, where, how much, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

SHOWN = 8
BLOCKS, WARNS, NOTES = "blocks", "warns", "notes"
SEVERITIES = (BLOCKS, WARNS, NOTES)


@dataclass(frozen=True)
class Finding:
    """One thing that ruins results, or may."""

    check: str
    severity: str
    """`blocks`: results would mean nothing. `warns`: they need care. `notes`: good to know."""
    size: str
    """How much of the data it is about, in figures."""
    remedy: str
    rows: tuple[str, ...] = ()
    """Where: lines of a file, or the subjects of built-in facts."""

    def __str__(self) -> str:
        more = f" and {len(self.rows) - SHOWN} more" if len(self.rows) > SHOWN else ""
        where = f" [{'; '.join(self.rows[:SHOWN])}{more}]" if self.rows else ""
        return f"{self.severity:<7}{self.check}: {self.size}{where}\n       -> {self.remedy}"

    def to_json(self) -> dict:
        return asdict(self)


def blocks(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == BLOCKS for finding in findings)
