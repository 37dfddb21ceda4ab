"""How detectors and token scores look in notebooks."""

from __future__ import annotations

from html import escape

import pandas as pd

from adapterprobe.detectors.bundle_record import DetectorRecord
from adapterprobe.detectors.golden import GoldenReport
from adapterprobe.terminal import printable


class TokenTable(pd.DataFrame):
    """A table of tokens and their scores. A notebook shows the text, each token shaded by its score; what is made of it (a part, a sorted
    copy) is a plain table."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        spans = [
            f'<span style="background: rgba(214, 39, 40, {0.75 * score:.3f})" title="{score:.3f}">{_shown(token)}</span>'
            for token, score in zip(self["token"], self["score"], strict=True)
        ]
        mean = f"{self['score'].mean():.3f}" if len(self) else "none"
        return (
            f'<div style="white-space: pre-wrap; line-height: 1.6">{"".join(spans)}</div>'
            f"<small>{len(self)} tokens, mean score {mean}; the darker, the higher (hover for the score)</small>"
        )


def _shown(text: str) -> str:
    """Text with its line breaks, and nothing that a page would take for its own."""
    return "\n".join(escape(printable(line)) for line in text.split("\n"))


def detector_html(record: DetectorRecord, model: str, golden: GoldenReport | None) -> str:
    """A detector in a notebook: what it is, and what is known of it."""
    threshold = record.threshold
    upper = "" if threshold.upper is None else f", false alarms at most {threshold.upper:.3g}"
    rows = {
        "arm": record.arm,
        "detects": record.axis,
        "reads": record.read.what,
        "model": model,
        "threshold": "none" if threshold.value is None else f"{threshold.value:.3f} ({threshold.how}{upper})",
        "golden rows": "not replayed" if golden is None else f"{golden.level}, shift up to {golden.largest:.2g}",
    }
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(printable(str(value)))}</td></tr>" for name, value in rows.items()
    )
    return f"<b>{escape(printable(record.name))}</b><table>{cells}</table>"
