"""The main figures of a report: arms, layers, ROC curves, training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score, roc_curve

from adapterprobe.report.figure_style import COLOURS, FAINT, INK, SPLIT_TITLES, canvas, legend, splits_of, tip, titles
from adapterprobe.report.probe_figures import PROBE_FIGURES
from adapterprobe.report.reply_tokens import along_figure
from adapterprobe.report.robustness_figures import CHALLENGE_FIGURES
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import shown


def arms_figure(run: RunResults) -> Figure:
    """AUROC of every arm with its 95 % interval, and each seed as a dot."""
    splits = splits_of(run)
    figure, axes = canvas(4.6 * len(splits) + 0.6, 0.42 * len(run.arms) + 1.1, len(splits), sharey=True, sharex=True)
    for axis, split in zip(axes, splits, strict=True):
        for place, arm in enumerate(reversed(run.arms)):
            record = run.result(split, arm)
            if record is None:
                continue
            colour = COLOURS[arm]
            axis.plot(
                [record["low"], record["high"]],
                [place, place],
                color=colour,
                linewidth=3,
                solid_capstyle="round",
            )
            (dot,) = axis.plot(record["estimate"], place, "o", color=colour, markersize=8)
            tip(figure, dot, f"{arm}, {split}: {shown(record)}, {record['n_groups']} groups")
            for value in seed_aurocs(run, split, arm):
                axis.plot(value, place - 0.27, "|", color=colour, markersize=6, alpha=0.8)
            axis.annotate(
                f"{record['estimate']:.2f}", (record["high"], place), xytext=(6, -3), textcoords="offset points",
                color=INK, fontsize=8.5,
            )  # fmt: skip
        axis.axvline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axis.set_yticks(range(len(run.arms)), list(reversed(run.arms)))
        axis.set_xlim(0.35, 1.04)
        titles(axis, SPLIT_TITLES[split], f"AUROC for {run.axis} (0.5: chance)")
    return figure


def seed_aurocs(run: RunResults, split: str, arm: str) -> list[float]:
    """Each seed's AUROC, averaged within data set and condition."""
    rows = run.predictions
    probe = run.probe_of(arm)
    rows = rows[(rows["split"] == split) & (rows["arm"] == arm) & (rows["axis"] == run.axis)]
    rows = rows[rows["probe"].isna()] if probe is None else rows[rows["probe"] == probe]
    return [_mean_auroc(part) for _, part in rows.groupby("seed")]


def _mean_auroc(rows: pd.DataFrame) -> float:
    cells = [
        roc_auc_score(cell["label"].astype(int), cell["score"])
        for _, cell in rows.groupby(["dataset", "condition"])
        if cell["label"].nunique() == 2
    ]
    return float(np.mean(cells)) if cells else float("nan")


def layers_figure(run: RunResults) -> Figure:
    """AUROC by layer, with and without adapter: thin lines are seeds."""
    splits = splits_of(run)
    figure, axes = canvas(4.6 * len(splits) + 0.6, 3.4, len(splits), sharey=True)
    table = run.layer_aurocs
    table = table[table["probe"] == run.config.evaluate.probe]
    for axis, split in zip(axes, splits, strict=True):
        for arm in ("base+probe", "base+probe@matched", "adapter+probe", "diff+probe"):
            mine = table[(table["arm"] == arm) & (table["split"] == split)]
            if mine.empty:
                continue
            by_seed = mine.pivot_table(index="layer", columns="seed", values="auroc")
            if by_seed.nunique(axis=1).max() > 1:
                axis.plot(by_seed.index, by_seed.to_numpy(), color=COLOURS[arm], linewidth=0.6, alpha=0.5)
            axis.plot(by_seed.index, by_seed.mean(axis=1), color=COLOURS[arm], linewidth=2, label=arm)
        axis.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        titles(axis, SPLIT_TITLES[split], "hidden state after so many blocks", f"AUROC for {run.axis}")
        axis.axvspan(0, run.about["lowest_adapted_layer"], color=FAINT, alpha=0.35, linewidth=0)
    legend(axes[-1], loc="upper left")
    return figure


def roc_figure(run: RunResults) -> Figure:
    """ROC curves, averaged vertically over data sets, conditions and seeds."""
    splits = splits_of(run)
    figure, axes = canvas(4.3 * len(splits) + 0.4, 4.0, len(splits), sharey=True)
    grid = np.linspace(0, 1, 201)
    for axis, split in zip(axes, splits, strict=True):
        for arm in run.arms:
            rows = run.predictions
            probe = run.probe_of(arm)
            rows = rows[(rows["split"] == split) & (rows["arm"] == arm) & (rows["axis"] == run.axis)]
            rows = rows[rows["probe"].isna()] if probe is None else rows[rows["probe"] == probe]
            curves = []
            for _, cell in rows.groupby(["dataset", "condition", "seed"]):
                if cell["label"].nunique() == 2:
                    alarms, hits, _ = roc_curve(cell["label"].astype(int), cell["score"])
                    curves.append(np.interp(grid, alarms, hits))
            if curves:
                axis.plot(grid, np.mean(curves, axis=0), color=COLOURS[arm], linewidth=1.8, label=arm)
        axis.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=":")
        axis.set_aspect("equal")
        titles(axis, SPLIT_TITLES[split], "false positive rate", "recall")
    legend(axes[-1], loc="lower right")
    return figure


def training_figure(run: RunResults) -> Figure:
    """Loss (dashed: on what is learned from), accuracy of the wanted choice and coverage on `select`, by epoch."""
    figure, axes = canvas(9.6, 2.9, 3)
    names = [
        ("loss", "loss (nats)"),
        ("accuracy", "choice accuracy on select"),
        ("coverage", "choice coverage on select"),
    ]
    for axis, (key, label) in zip(axes, names, strict=True):
        for number, adapter in enumerate(run.about["adapters"]):
            epochs = [e["epoch"] for e in adapter["epochs"]]
            colour = list(COLOURS.values())[number % len(COLOURS)]
            values = [e[key] for e in adapter["epochs"]]
            axis.plot(epochs, values, "o-", color=colour, markersize=4, label=f"seed {adapter['seed']}")
            if key == "loss":
                axis.plot(epochs, [e["train_loss"] for e in adapter["epochs"]], "--", color=colour, linewidth=1)
            best = adapter["best_epoch"]
            if best in epochs:
                axis.plot(best, values[epochs.index(best)], "o", markersize=10, fillstyle="none", color=colour)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        titles(axis, label, "epoch")
    legend(axes[1], loc="best")
    return figure


MAIN_FIGURES = {"arms": arms_figure, "layers": layers_figure, "roc": roc_figure, "training": training_figure}
FIGURES = MAIN_FIGURES | PROBE_FIGURES | CHALLENGE_FIGURES | {"along": along_figure}
"""By name; one that has nothing to show is None."""
