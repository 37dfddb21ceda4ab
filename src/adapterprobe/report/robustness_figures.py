"""Figures of what detectors are held against: label axes, other ways of asking, what the adapter changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adapterprobe.report.figure_style import COLOURS, FAINT, INK, SPLIT_TITLES, canvas, cell, legend, splits_of, titles
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import unscored_axes
from adapterprobe.types import AXES


def heat(axis, values: np.ndarray, rows: list[str], columns: list[str], title: str) -> None:
    """AUROCs as a map: purple above chance, orange below, the figures in the cells."""
    axis.pcolormesh(values, cmap="PuOr", vmin=0, vmax=1)
    axis.set_ylim(len(rows), 0)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=20, ha="right")
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.grid(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            cell(axis, row, column, f"{value:.2f}", abs(value - 0.5) > 0.3, 8.5)
    titles(axis, title)


def axes_figure(run: RunResults) -> Figure:
    """What each arm detects: AUROC against each label axis."""
    splits = splits_of(run)
    names = [name for name in AXES if name not in unscored_axes(run)]
    figure, panels = canvas(4.4 * len(splits) + 1.2, 0.36 * len(run.arms) + 1.3, len(splits), sharey=True)
    for axis, split in zip(panels, splits, strict=True):
        values = np.full((len(run.arms), len(names)), np.nan)
        for row, arm in enumerate(run.arms):
            for column, name in enumerate(names):
                record = run.result(split, arm, axis=name)
                if record is not None and record["estimate"] is not None:
                    values[row, column] = record["estimate"]
        heat(axis, values, run.arms, names, SPLIT_TITLES[split])
    return figure


def shifts_figure(run: RunResults) -> Figure | None:
    """AUROC of each arm in each way of asking, the lowest seed."""
    table = pd.DataFrame(run.challenge["shifts"])
    if table.empty:
        return None
    ways = list(dict.fromkeys(table["shift"]))
    arms = [arm for arm in run.arms if arm in set(table["arm"])]
    values = np.full((len(arms), len(ways) + 1), np.nan)
    for record in run.challenge["shifts"]:
        values[arms.index(record["arm"]), ways.index(record["shift"]) + 1] = record["auroc"]
        values[arms.index(record["arm"]), 0] = record["as_asked"]
    figure, (axis,) = canvas(1.1 * len(ways) + 3.6, 0.36 * len(arms) + 1.5)
    heat(axis, values, arms, ["as asked", *ways], f"AUROC for {run.axis}, the same groups asked otherwise")
    return figure


def integrity_figure(run: RunResults) -> Figure:
    """By layer: how alike the states are with the adapter off and on, how large the change is, how much of it is truth."""
    table = pd.DataFrame(run.challenge["integrity"]["layers"])
    panels = [
        ("cka", "alike (linear CKA)"),
        ("relative_change", "size of the change (of the state's)"),
        ("truth_share", f"share of it between {run.classes[1]} and {run.classes[0]}"),
    ]
    figure, axes = canvas(9.6, 2.8, 3)
    for axis, (key, title) in zip(axes, panels, strict=True):
        for number, (seed, part) in enumerate(table.groupby("seed")):
            colour = list(COLOURS.values())[number % len(COLOURS)]
            axis.plot(part["layer"], part[key].astype(float), color=colour, linewidth=1.5, label=f"seed {seed}")
        axis.axvspan(0, run.about["lowest_adapted_layer"], color=FAINT, alpha=0.35, linewidth=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.axhline(1 if key == "cka" else 0, color=INK, linewidth=0.9, linestyle=":")
        titles(axis, title, "layer")
    legend(axes[1], loc="best")
    return figure


CHALLENGE_FIGURES = {"axes": axes_figure, "shifts": shifts_figure, "integrity": integrity_figure}
