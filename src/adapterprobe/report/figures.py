"""The figures of a report: SVG for the page, SVG and PNG for papers."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score, roc_curve

from adapterprobe.evaluate.ranks import auroc_columns
from adapterprobe.report.gather import Gathered

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = {
    "base": "#999999",
    "adapter": "#e69f00",
    "base+probe": "#56b4e9",
    "base+probe@matched": "#0072b2",
    "adapter+probe": "#d55e00",
    "both+probe": "#009e73",
    "diff+probe": "#cc79a7",
}
INK, FAINT = "#1a1b1c", "#cfd1d3"
"""Stand-ins that the page replaces by its own colours, so that figures follow dark mode."""


def _figure(width: float, height: float, columns: int = 1, **options):
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


def _titles(axis, title: str, x: str = "", y: str = "") -> None:
    axis.set_title(title, color=INK, fontsize=10.5, loc="left")
    axis.set_xlabel(x, color=INK, fontsize=9.5)
    axis.set_ylabel(y, color=INK, fontsize=9.5)


def _legend(owner, **options) -> None:
    legend = owner.legend(fontsize=8.5, frameon=False, labelcolor=INK, **options)
    legend.set_in_layout(True)


SPLIT_TITLES = {"test": "Held-out questions", "ood": "Kinds of question never trained on"}


def splits_of(run: Gathered) -> list[str]:
    return [split for split in ("test", "ood") if split in set(run.results["split"])]


def arms_figure(run: Gathered) -> Figure:
    """AUROC of every arm with its 95 % interval, and each seed as a dot."""
    splits = splits_of(run)
    figure, axes = _figure(4.6 * len(splits) + 0.6, 0.42 * len(run.arms) + 1.1, len(splits), sharey=True, sharex=True)
    for axis, split in zip(axes, splits):
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
            axis.plot(record["estimate"], place, "o", color=colour, markersize=8)
            for value in seed_aurocs(run, split, arm):
                axis.plot(value, place - 0.27, "|", color=colour, markersize=6, alpha=0.8)
            axis.annotate(
                f"{record['estimate']:.2f}", (record["high"], place), xytext=(6, -3), textcoords="offset points",
                color=INK, fontsize=8.5,
            )  # fmt: skip
        axis.axvline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axis.set_yticks(range(len(run.arms)), list(reversed(run.arms)))
        axis.set_xlim(0.35, 1.04)
        _titles(axis, SPLIT_TITLES[split], "AUROC for truth (0.5: chance)")
    return figure


def seed_aurocs(run: Gathered, split: str, arm: str) -> list[float]:
    """Each seed's AUROC, averaged within data set and condition."""
    rows = run.predictions
    probe = run.probe_of(arm)
    rows = rows[(rows["split"] == split) & (rows["arm"] == arm) & (rows["axis"] == "truth")]
    rows = rows[rows["probe"].isna()] if probe is None else rows[rows["probe"] == probe]
    return [_mean_auroc(part) for _, part in rows.groupby("seed")]


def _mean_auroc(rows: pd.DataFrame) -> float:
    cells = [
        roc_auc_score(cell["label"].astype(int), cell["score"])
        for _, cell in rows.groupby(["dataset", "condition"])
        if cell["label"].nunique() == 2
    ]
    return float(np.mean(cells)) if cells else float("nan")


def layers_figure(run: Gathered) -> Figure:
    """AUROC by layer, with and without adapter: thin lines are seeds."""
    splits = splits_of(run)
    figure, axes = _figure(4.6 * len(splits) + 0.6, 3.4, len(splits), sharey=True)
    table = layer_table(run)
    for axis, split in zip(axes, splits):
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
        _titles(axis, SPLIT_TITLES[split], "hidden state after so many blocks", "AUROC for truth")
        axis.axvspan(0, run.about["lowest_adapted_layer"], color=FAINT, alpha=0.35, linewidth=0)
    _legend(axes[-1], loc="upper left")
    return figure


def layer_table(run: Gathered) -> pd.DataFrame:
    """AUROC by split, arm, seed and layer for the main probe, averaged over data sets and conditions."""
    rows = run.layers[(run.layers["probe"] == run.config.evaluate.probe) & run.layers["split"].isin(["test", "ood"])]
    tables = []
    for (split, _, _), cell in rows.groupby(["split", "dataset", "condition"], observed=True):
        wide = cell.pivot_table(
            index=["prompt_id", "label"], columns=["arm", "seed", "layer"], values="score", observed=True
        )
        values = auroc_columns(wide.index.get_level_values("label").to_numpy(int), wide.to_numpy())
        tables.append(pd.DataFrame({"split": split, "auroc": values}, index=wide.columns).reset_index())
    return pd.concat(tables).groupby(["split", "arm", "seed", "layer"], as_index=False)["auroc"].mean()


def roc_figure(run: Gathered) -> Figure:
    """ROC curves, averaged vertically over data sets, conditions and seeds."""
    splits = splits_of(run)
    figure, axes = _figure(4.3 * len(splits) + 0.4, 4.0, len(splits), sharey=True)
    grid = np.linspace(0, 1, 201)
    for axis, split in zip(axes, splits):
        for arm in run.arms:
            rows = run.predictions
            probe = run.probe_of(arm)
            rows = rows[(rows["split"] == split) & (rows["arm"] == arm) & (rows["axis"] == "truth")]
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
        _titles(axis, SPLIT_TITLES[split], "false positive rate", "recall")
    _legend(axes[-1], loc="lower right")
    return figure


def training_figure(run: Gathered) -> Figure:
    """Loss (dashed: on what is learned from), accuracy of the wanted choice and coverage on `select`, by epoch."""
    figure, axes = _figure(9.6, 2.9, 3)
    names = [
        ("loss", "loss (nats)"),
        ("accuracy", "choice accuracy on select"),
        ("coverage", "choice coverage on select"),
    ]
    for axis, (key, label) in zip(axes, names):
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
        _titles(axis, label, "epoch")
    _legend(axes[1], loc="best")
    return figure


FIGURES = {"arms": arms_figure, "layers": layers_figure, "roc": roc_figure, "training": training_figure}


def to_svg(figure: Figure, name: str, themed: bool = True) -> str:
    """SVG text; `themed` swaps the stand-in colours for the page's variables and makes ids unique."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    if not themed:
        return svg
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
