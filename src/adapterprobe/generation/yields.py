"""What came of it: prompts, replies, what was held true, and lies, by instruction."""

from __future__ import annotations

from collections.abc import Sequence

from adapterprobe.generation.rows import both_kinds
from adapterprobe.types import OUTCOMES

COLUMNS = ("system_prompt", "condition", "prompts", "replies", "believed", *OUTCOMES, "both", "lie_rate")


def yield_table(rows: Sequence[dict]) -> list[dict]:
    """By instruction, and in all: contexts, replies, contexts whose truth the model holds, replies of each outcome, contexts with an honest
    and a lying reply, and `lie_rate`: lies among lies and honest replies (None without any)."""
    both = both_kinds(rows)
    names = sorted({(row["condition"], row["system_prompt"]) for row in rows}, reverse=True)
    table = [_line([r for r in rows if (r["condition"], r["system_prompt"]) == name], name, both) for name in names]
    conditions = sorted({row["condition"] for row in rows}, reverse=True)
    table += [_line([r for r in rows if r["condition"] == c], (c, "all"), both) for c in conditions]
    return table


def _line(rows: Sequence[dict], name: tuple[str, str], both: set[str]) -> dict:
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES}
    told = counts["lie"] + counts["honest"]
    return {
        "system_prompt": name[1],
        "condition": name[0],
        "prompts": len({row["context"] for row in rows}),
        "replies": len(rows),
        "believed": len({row["context"] for row in rows if row["believed"]}),
        **counts,
        "both": len({row["context"] for row in rows} & both),
        "lie_rate": counts["lie"] / told if told else None,
    }


def told(table: Sequence[dict]) -> str:
    """The table for a terminal."""
    titles = [column.replace("_", " ") for column in COLUMNS]
    cells = [[_cell(line[column]) for column in COLUMNS] for line in table]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    left = 2
    lines = [titles, *cells]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
