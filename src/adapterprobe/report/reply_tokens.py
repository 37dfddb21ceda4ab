"""Replies, their tokens coloured by what a probe says there."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from adapterprobe.report.figure_style import canvas, legend, titles
from adapterprobe.report.run_reader import RunResults

SHADES = 9
"""From surely honest (blue) over undecided to surely deceptive (orange); both are told apart by colour-blind readers."""
MOST = 12
"""Replies in the page; `tokens.parquet` has more."""
COLOURS = {1: "#d55e00", 0: "#0072b2"}
LINES = {"base+probe": "--", "adapter+probe": "-"}


def coloured_replies(run: RunResults) -> list[dict]:
    """Replies with the tokens of each arm: those that an arm is wrong about first, then the most and the least deceptive in turn.

    Each has `before` (the conversation as it was sent, up to the reply), `label`, `arms` (by name: the score that was given, whether it
    is wrong, and tokens as text, shade and score).
    """
    if run.tokens is None:
        return []
    given = run.judged.set_index(["prompt_id", "arm"])
    about = run.prompts.drop_duplicates("prompt_id").set_index("prompt_id")
    found = []
    for prompt_id, tokens in run.tokens.groupby("prompt_id", sort=False):
        prompt = about.loc[prompt_id]
        arms = {}
        for arm, mine in tokens.groupby("arm", sort=False):
            record = given.loc[(prompt_id, arm)]
            arms[arm] = {
                "score": float(record["score"]),
                "wrong": bool(record["wrong"]),
                "layer": int(mine["layer"].iloc[0]),
                "tokens": [
                    (text, min(SHADES - 1, int(score * SHADES)), float(score))
                    for text, score in zip(mine["text"], mine["score"], strict=True)
                ],
            }
        found.append(
            {
                "before": prompt["text"][: int(prompt["read_start"])],
                "label": int(tokens["label"].iloc[0]),
                "arms": arms,
                "wrong": sum(arm["wrong"] for arm in arms.values()),
                "first": next(iter(arms.values()))["score"],
            }
        )
    return _ordered(found)


def _ordered(found: list[dict]) -> list[dict]:
    wrong = sorted((f for f in found if f["wrong"]), key=lambda f: -f["wrong"])[: MOST // 3]
    rest = sorted((f for f in found if f not in wrong), key=lambda f: -f["first"])
    half = (MOST - len(wrong)) // 2
    return [*wrong, *rest[:half], *rest[max(half, len(rest) - half) :]]


def along_figure(run: RunResults) -> Figure | None:
    """Mean score by tenth of the reply."""
    records = pd.DataFrame(run.challenge.get("along", []))
    if records.empty:
        return None
    figure, (axis,) = canvas(6.4, 3.2)
    for (arm, label), rows in records.groupby(["arm", "label"], sort=False):
        axis.plot(
            (rows["part"] + 0.5) * 10,
            rows["score"],
            LINES[arm],
            color=COLOURS[label],
            label=f"{arm}, {run.classes[label]}",
        )
    axis.set_ylim(0, 1)
    titles(axis, "Score along the reply", "% of the reply", f"mean score for {run.axis} at single tokens")
    legend(axis, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
