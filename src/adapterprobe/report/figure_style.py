"""What all figures share: canvas, colours, and SVG or PNG of them."""

from __future__ import annotations

import io
import re
from xml.sax.saxutils import escape

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from adapterprobe.report.run_reader import RunResults

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = {
    "base": "#999999",
    "adapter": "#e69f00",
    "base+probe": "#56b4e9",
    "base+probe@matched": "#0072b2",
    "adapter+probe": "#d55e00",
    "both+probe": "#009e73",
    "diff+probe": "#cc79a7",
    "adapter+head": "#5b3a8e",
    "withheld+probe": "#9a8700",
    "withheld+probe@adapter": "#c9b400",
    "stranger": "#8c6d5a",
    "stranger+probe": "#7a3b1d",
    "followups": "#4d4d99",
    "tfidf": "#6b8e23",
}
INK, FAINT = "#1a1b1c", "#cfd1d3"
"""Stand-ins that the page replaces by its own colours, so that figures follow dark mode."""


def canvas(width: float, height: float, columns: int = 1, **options):
    """A figure with axes in a row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    figure.patch.set_alpha(0)
    for axis in axes:
        axis.patch.set_alpha(0)
        axis.grid(color=FAINT, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(colors=INK, labelsize=9)
        for side, spine in axis.spines.items():
            spine.set_color(FAINT)
            spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def titles(axis, title: str, x: str = "", y: str = "") -> None:
    """Title and axes' names."""
    axis.set_title(title, color=INK, fontsize=10.5, loc="left")
    axis.set_xlabel(x, color=INK, fontsize=9.5)
    axis.set_ylabel(y, color=INK, fontsize=9.5)


def legend(owner, **options) -> None:
    """Of a figure or of axes."""
    drawn = owner.legend(fontsize=8.5, frameon=False, labelcolor=INK, **options)
    drawn.set_in_layout(True)


def cell(axis, row: int, column: int, text: str, on_dark: bool, size: float) -> None:
    """The figure in a cell of a heat map, in a colour of its own: cells keep theirs in dark mode. (Not black: an SVG leaves black
    out, and the page would then fill in its own.)"""
    axis.text(
        column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color="#ffffff" if on_dark else "#111213"
    )  # fmt: skip


def tip(figure: Figure, artist, text: str) -> None:
    """What is shown where one points at something drawn."""
    tips = figure.__dict__.setdefault("adapterprobe_tips", {})
    artist.set_gid(f"tip-{len(tips)}")
    tips[artist.get_gid()] = text


SPLIT_TITLES = {"test": "Held-out questions", "ood": "Kinds of question never trained on"}


def splits_of(run: RunResults) -> list[str]:
    return [split for split in ("test", "ood") if split in set(run.results["split"])]


def plain_text():
    """Within, a dollar sign in somebody's data is one, and begins no formula."""
    from matplotlib import rc_context

    return rc_context({"text.parse_math": False})


def to_svg(figure: Figure, name: str) -> str:
    """SVG text, the same for the same figure; what people wrote stays as they wrote it."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    for name, text in figure.__dict__.get("adapterprobe_tips", {}).items():
        svg = svg.replace(f'<g id="{name}">', f'<g id="{name}"><title>{escape(text)}</title>')
    return svg


def themed(svg: str, name: str) -> str:
    """An SVG for the page: the stand-in colours swapped for the page's variables, ids unique among its figures."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace(INK, "var(--ink)").replace(FAINT, "var(--line)")
    # Ids of clip paths and markers repeat between figures of one page.
    svg = re.sub(r'id="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1).replace(
        r"<svg", f'<svg role="img" aria-label="{name}"', 1
    )


def to_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.patch.set_alpha(1)
    figure.patch.set_facecolor("white")
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
