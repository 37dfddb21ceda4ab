"""Tables and texts as Markdown; what people wrote stays text."""

from __future__ import annotations

import re

import pandas as pd


def to_markdown(frame: pd.DataFrame) -> str:
    def cells(values) -> str:
        return "| " + " | ".join(harmless(value) for value in values) + " |"

    lines = [cells(frame.columns), cells(["---"] * len(frame.columns))]
    return "\n".join([*lines, *(cells(row) for row in frame.itertuples(index=False))])


def harmless(value: object) -> str:
    """Text that stays in its cell, and is no markup."""
    text = " ".join(str(value).split())
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "&#96;"), ("](", "]&#40;")):
        text = text.replace(sign, safe)
    return text


def fenced(text: str) -> str:
    """A block of text as it is, whatever backticks it has."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
