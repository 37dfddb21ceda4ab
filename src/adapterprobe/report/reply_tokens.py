"""Replies, their tokens coloured by what a probe says there."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd
from matplotlib.figure import Figure

from adapterprobe.evaluate.schema import HEAD, shown_probe
from adapterprobe.report.figure_style import canvas, legend, titles
from adapterprobe.report.run_reader import RunResults

SHADES = 9
"""From surely honest (blue) over undecided to surely deceptive (orange); both are told apart by colour-blind readers."""
MOST = 12
"""Replies in the page; `tokens.parquet` has more."""
COLOURS = {1: "#d55e00", 0: "#0072b2"}
LINES = {"base+probe": "--", "adapter+probe": "-", HEAD: ":"}


def coloured_replies(run: RunResults) -> list[dict]:
    """Replies with the tokens of each arm: those that an arm is wrong about first, then the most and the least deceptive in turn.

    Each has `before` (the conversation as it was sent, up to the reply), `label`, `arms` (by name: the score that was given, whether it
    is wrong, and tokens as text, shade and score, at the arm's own layer, of the probe that is shown), `views` (by arm and by probe
    and layer: all scores).
    """
    if run.tokens is None:
        return []
    table = run.tokens
    if "probe" not in table:
        # Runs of former releases have the main probe at its own layer alone.
        table = table.assign(probe=run.config.evaluate.probe, chosen=True)
    given = run.judged.set_index(["prompt_id", "arm"])
    about = run.prompts.drop_duplicates("prompt_id").set_index("prompt_id")
    shown = shown_probe(run.config.evaluate.probe, table["probe"].unique())
    found = []
    for prompt_id, everything in table.groupby("prompt_id", sort=False):
        tokens = everything[everything["chosen"] & everything["probe"].isin(["", shown])]
        if tokens.empty:
            continue
        prompt: Any = about.loc[prompt_id]
        arms = {}
        for arm, mine in tokens.groupby("arm", sort=False):
            record: Any = given.loc[(prompt_id, arm), :]
            arms[arm] = {
                "score": float(record["score"]),
                "wrong": bool(record["wrong"]),
                "layer": int(mine["layer"].iloc[0]),
                "view": view_name(mine["probe"].iloc[0], int(mine["layer"].iloc[0])),
                "tokens": [
                    (text, min(SHADES - 1, int(score * SHADES)), float(score))
                    for text, score in zip(mine["text"], mine["score"], strict=True)
                ],
            }
        found.append(
            {
                "views": _views(everything),
                "before": prompt["text"][: int(prompt["read_start"])],
                "label": int(tokens["label"].iloc[0]),
                "arms": arms,
                "wrong": sum(arm["wrong"] for arm in arms.values()),
                "first": next(iter(arms.values()))["score"],
            }
        )
    return _ordered(found)


def view_name(probe: str, layer: int) -> str:
    """What a picker calls a probe at a layer."""
    return f"{probe}, layer {layer}" if probe else f"its head, layer {layer}"


def _views(tokens: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for key, mine in tokens.groupby(["arm", "probe", "layer"], sort=False):
        arm, probe, layer = cast(tuple[str, str, int], key)
        found.setdefault(arm, {})[view_name(probe, layer)] = [round(float(score), 3) for score in mine["score"]]
    return found


def token_data(replies: list[dict]) -> dict:
    """What the page's script needs to colour the shown replies by another probe or layer."""
    return {"shades": SHADES, "replies": [reply["views"] for reply in replies]}


def spans_table(run: RunResults) -> pd.DataFrame:
    """How well tokens inside of marked false ranges are told from the others of the same replies."""
    return pd.DataFrame(
        [
            {
                "arm": r["arm"],
                "probe": r["probe"] or "its head",
                "layer": r["layer"],
                "AUROC of tokens": f"{r['auroc']:.3f} [{r['low']:.3f}, {r['high']:.3f}]",
                "tokens": r["tokens"],
                "inside of false ranges": r["inside"],
                "replies": r["replies"],
            }
            for r in run.challenge.get("false_spans", [])
        ]
    )


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
    for key, rows in records.groupby(["arm", "label"], sort=False):
        arm, label = cast(tuple[str, int], key)
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
