"""The screening's table: in the terminal, and as a heat map that opens offline."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from adapterprobe.cache import write_atomic
from adapterprobe.screening.metrics import COLUMNS, GROUPS

KEYS = ("model", "data", "format", "shots", "system")


def _shown(cell: dict, name: str) -> str:
    value = cell.get(name)
    return "–" if value is None else f"{value:.2f}"


def _keys(cells: list[dict]) -> list[str]:
    """Key columns that tell cells apart (at least the format)."""
    return [k for k in KEYS if k == "format" or len({str(cell[k]) for cell in cells}) > 1]


def text_table(cells: list[dict]) -> str:
    """Cells as aligned text, each column explained below."""
    keys = _keys(cells)
    head = [*keys, *COLUMNS, "known", "recalled"]
    rows = [
        [str(cell[k]) if cell[k] is not None else "none" for k in keys]
        + [_shown(cell, name) for name in COLUMNS]
        + [
            "–" if cell["error"] else f"{cell[f'n_{kind}_groups']}/{cell['n_groups']}"
            for kind in ("known", "recall_known")
        ]
        for cell in cells
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in [head, *rows]]
    lines.append("")
    lines += [f"  {name}: {meaning}" for name, meaning in COLUMNS.items()]
    for (name, meaning), kind in zip(GROUPS.items(), ("known", "recall_known"), strict=True):
        chance = max((cell[f"{kind}_chance"] for cell in cells if not cell["error"]), default=0.0)
        lines.append(f"  {name}: {meaning} (without knowing, {chance:.1%} would pass)")
    first: dict[str, int] = {}
    for cell in cells:
        for text in [cell["error"]] if cell["error"] else cell["warnings"]:
            first[text] = first.get(text, 0) + 1
    if first:
        lines.append("")
        lines += [f"  warning ({count} of {len(cells)} cells): {text}" for text, count in first.items()]
    return "\n".join(lines)


def shade(name: str, value: float | None) -> str:
    """A cell's colour: how far from chance (accuracies), or how much (the rest). Empty for no value."""
    if value is None:
        return ""
    if name in ("acc", "lie_acc", "known_lie_acc", "recall_known_lie_acc", "balance"):
        side = "high" if value > 0.5 else "low"
        return f"{side}{min(4, int(abs(value - 0.5) * 10))}"
    return f"much{min(4, int(value * 5))}"


def write_screen(folder: Path, cells: list[dict], advice: str) -> None:
    """Write `screen.html`."""
    ours, shared = resources.files("adapterprobe.screening"), resources.files("adapterprobe.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((ours / "screen.html.j2").read_text("utf-8"))
    text = template.render(
        css=Markup((shared / "page.css").read_text("utf-8")),
        cells=cells,
        keys=_keys(cells),
        columns=COLUMNS,
        groups=GROUPS,
        shown=_shown,
        shade=shade,
        advice=advice,
    )
    write_atomic(folder / "screen.html", text)
