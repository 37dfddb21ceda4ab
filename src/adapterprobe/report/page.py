"""What all pages share: figures drawn and written, one style sheet, one script that the page's policy names by its hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from adapterprobe.cache import write_atomic
from adapterprobe.report.figure_style import plain_text, themed, to_png, to_svg


def draw_all(figures: Mapping[str, Callable[..., Figure | None]], run, folder: Path) -> dict[str, Markup]:
    """Write `figures/NAME.svg` and `.png` of those that have something to show. Returns them for a page."""
    target = folder / "figures"
    target.mkdir(parents=True, exist_ok=True)
    inline = {}
    for name, draw in figures.items():
        with plain_text():
            figure = draw(run)
        if figure is None:
            continue
        svg = to_svg(figure, name)
        inline[name] = Markup(themed(svg, name))
        write_atomic(target / f"{name}.svg", svg)
        write_atomic(target / f"{name}.png", to_png(figure))
    return inline


def render_page(template: str, **content) -> str:
    """HTML of one of our templates; whatever comes from data is escaped."""
    folder = resources.files("adapterprobe.report")
    script = (folder / "page.js").read_text("utf-8").strip()
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string((folder / template).read_text("utf-8")).render(
        css=Markup((folder / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **content,
    )


def in_script(content: dict) -> Markup:
    """JSON that may stand in a `script` element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
