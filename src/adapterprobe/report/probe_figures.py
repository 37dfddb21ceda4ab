"""Figures about probes: by layer, calibration, coverage, uncertainty, directions, projections, steering, learning curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adapterprobe.report.figure_style import COLOURS, INK, SPLIT_TITLES, canvas, cell, legend, splits_of, titles
from adapterprobe.report.run_reader import RunResults

PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#7f5539"]
DASHES = ["-", "--", ":", "-."]
SHOWN = ("base+probe@matched", "adapter+probe")
MANY_LINES = 8
"""Data sets beyond which a line for each cannot be told apart."""


def style(number: int) -> dict:
    """A colour and a dash for the n-th of many lines."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number // len(PALETTE) % len(DASHES)]}


def probe_layers_figure(run: RunResults) -> Figure:
    """AUROC by layer of every probe, on test, with the adapter off and on: means over seeds."""
    table = run.layer_aurocs
    table = table[table["split"] == "test"]
    figure, axes = canvas(10.2, 3.8, 2, sharey=True)
    for axis, arm in zip(axes, SHOWN, strict=True):
        for number, spec in enumerate(run.config.probe_specs):
            mine = table[(table["arm"] == arm) & (table["probe"] == spec.label)].groupby("layer")["auroc"].mean()
            if len(mine) > 1:
                axis.plot(mine.index, mine, linewidth=1.5, label=spec.label, **style(number))
            elif len(mine):
                axis.plot(mine.index, mine, "o", color=style(number)["color"], label=spec.label)
        axis.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        titles(axis, arm, "hidden state after so many blocks", f"AUROC for {run.axis}, held-out questions")
    handles, labels = axes[0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside right upper")
    return figure


def reliability_figure(run: RunResults) -> Figure:
    """Share of true answers against the probability that was given, as it is and calibrated."""
    records = pd.DataFrame(run.probes["calibration"])
    splits = splits_of(run)
    figure, axes = canvas(4.3 * len(splits) + 0.4, 4.0, len(splits), sharey=True)
    for axis, split in zip(axes, splits, strict=True):
        for arm in SHOWN:
            for method, dash in (("as it is", "--"), ("Platt", "-")):
                rows = records[
                    (records["split"] == split)
                    & (records["arm"] == arm)
                    & (records["probe"] == run.config.evaluate.probe)
                    & (records["method"] == method)
                ]
                points = pd.DataFrame([point for bins in rows["bins"] for point in bins])
                if points.empty:
                    continue
                points["bin"] = (points["chance"] * 10).astype(int).clip(0, 9)
                weighted = points.assign(chance=points["chance"] * points["n"], share=points["share"] * points["n"])
                sums = weighted.groupby("bin")[["chance", "share", "n"]].sum()
                axis.plot(
                    sums["chance"] / sums["n"], sums["share"] / sums["n"], f"{dash}o", color=COLOURS[arm], markersize=4,
                    linewidth=1.6 if method != "as it is" else 1.0, label=f"{arm}, {method}",
                )  # fmt: skip
        axis.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=":")
        axis.set_aspect("equal")
        titles(axis, SPLIT_TITLES[split], f"probability of {run.axis} that is given", f"share that is {run.classes[1]}")
    legend(axes[-1], loc="upper left")
    return figure


def coverage_figure(run: RunResults) -> Figure | None:
    """Measured against nominal coverage of class-conditional conformal sets, each data set by itself."""
    records = pd.DataFrame(run.probes["conformal"])
    if "method" not in records or "coverage" not in records:
        return None
    records = records[(records["kind"] == "sets") & (records["method"] == "class-conditional")]
    figure, axes = canvas(9.2, 4.0, 2, sharey=True)
    for axis, arm in zip(axes, SHOWN, strict=True):
        mine = records[(records["arm"] == arm) & (records["probe"] == run.config.evaluate.probe)]
        if mine["dataset"].nunique() > MANY_LINES:
            _coverage_ranges(axis, mine)
            mine = mine.iloc[:0]
        for number, (dataset, part) in enumerate(mine.groupby("dataset", sort=False)):
            part = part.sort_values("nominal")
            errors = np.stack([part["coverage"] - part["coverage_low"], part["coverage_high"] - part["coverage"]])
            axis.errorbar(
                part["nominal"] + 0.004 * number, part["coverage"], yerr=errors.clip(0), fmt="o-", markersize=4,
                linewidth=1.2, capsize=2, color=PALETTE[number % len(PALETTE)], label=f"{dataset} ({part['split'].iloc[0]})",
            )  # fmt: skip
        axis.plot([0.45, 1], [0.45, 1], color=INK, linewidth=0.9, linestyle=":")
        titles(axis, arm, "coverage that is asked for", "coverage that is measured")
    legend(axes[-1], loc="lower right")
    return figure


def _coverage_ranges(axis, records: pd.DataFrame) -> None:
    """Of many data sets: mean, lowest and highest coverage in each split."""
    for colour, (split, part) in zip(PALETTE, records.groupby("split", sort=False), strict=False):
        found = part.groupby("nominal")["coverage"].agg(["mean", "min", "max"])
        count = part["dataset"].nunique()
        axis.fill_between(found.index, found["min"], found["max"], color=colour, alpha=0.18, linewidth=0)
        axis.plot(
            found.index,
            found["mean"],
            "o-",
            color=colour,
            markersize=4,
            label=f"{split}: {count} data sets, mean and range",
        )


def epistemic_figure(run: RunResults) -> Figure | None:
    """How epistemic uncertainty is distributed in and out of distribution, for each probe that tells it."""
    frame = run.uncertainty
    if frame is None or frame.empty:
        return None
    frame = frame[(frame["arm"] == "base+probe@matched") & (frame["seed"] == frame["seed"].min())]
    names = list(dict.fromkeys(frame["probe"]))
    figure, axes = canvas(3.4 * len(names) + 1.4, 3.2, len(names))
    for axis, probe in zip(axes, names, strict=True):
        mine = frame[(frame["probe"] == probe) & frame["split"].isin(["test", "ood"])]
        for number, (dataset, part) in enumerate(mine.groupby("dataset", sort=False)):
            values = np.sort(part["epistemic"].to_numpy(float))
            inside = part["split"].iloc[0] == "test"
            axis.plot(
                values, (np.arange(len(values)) + 1) / len(values), color=PALETTE[number % len(PALETTE)],
                linewidth=2.2 if inside else 1.3, label=f"{dataset} ({part['split'].iloc[0]})",
            )  # fmt: skip
        titles(axis, probe, "epistemic uncertainty (nats)", "share of prompts below")
    legend(axes[-1], loc="lower right")
    return figure


def cosines_figure(run: RunResults) -> Figure | None:
    """Cosines of directions between probes, between layers, and between adapter off and on."""
    found = run.probes.get("cosines")
    if not found or not found["probes"]:
        return None
    arms = list(found["probes"])
    figure, axes = canvas(4.0 * (len(arms) + 2), 3.9, len(arms) + 2)
    for axis, arm in zip(axes, arms, strict=False):
        part = found["probes"][arm]
        _matrix(figure, axis, part["cosines"], part["names"], f"{arm}, layer {part['layer']}")
    if found["layers"]:
        names = found["layers"]["names"]
        _matrix(figure, axes[-2], found["layers"]["cosines"], names, "layers, adapter off", every=5)
    lines = pd.DataFrame(found["arms"])
    if len(lines):
        axes[-1].plot(lines["layer"], lines["cosine"], "o-", markersize=3, color=COLOURS["adapter+probe"])
        axes[-1].set_ylim(-1.05, 1.05)
    titles(axes[-1], "adapter off with on", "layer", "cosine")
    return figure


def _matrix(figure: Figure, axis, values: list, names: list[str], title: str, every: int = 1) -> None:
    # Not an image: it would be the only picture in the page that is no drawing.
    mesh = axis.pcolormesh(np.array(values), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.invert_yaxis()
    axis.set_aspect("equal")
    ticks = range(0, len(names), every)
    axis.set_xticks([tick + 0.5 for tick in ticks], [names[tick] for tick in ticks], rotation=90)
    axis.set_yticks([tick + 0.5 for tick in ticks], [names[tick] for tick in ticks])
    axis.grid(False)
    if every == 1 and len(names) <= 8:
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                cell(axis, row, column, f"{value:.2f}", abs(value) > 0.6, 7)
    titles(axis, title)
    bar = figure.colorbar(mesh, ax=axis, shrink=0.8)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)
    bar.ax.tick_params(colors=INK, labelsize=8)


def projections_figure(run: RunResults) -> Figure | None:
    """States of judged prompts in the plane of their main components, and along the probe."""
    frame = run.projections
    if frame is None or frame.empty:
        return None
    arms = list(dict.fromkeys(frame["arm"]))
    figure, axes = canvas(4.4 * 2 * len(arms), 4.0, 2 * len(arms))
    for place, arm in enumerate(arms):
        mine = frame[frame["arm"] == arm]
        pairs = (("pca_1", "pca_2", "main components"), ("along", "across", "the probe's plane"))
        for axis, (x, y, kind) in zip(axes[2 * place :], pairs, strict=False):
            for split, marker in (("test", "o"), ("ood", "x")):
                for truth, colour in ((1, "#0072b2"), (0, "#d55e00")):
                    rows = mine[(mine["split"] == split) & (mine["truth"] == truth)]
                    axis.scatter(
                        rows[x], rows[y], s=9, marker=marker, color=colour, alpha=0.55, linewidths=0.7,
                        label=f"{run.classes[truth]}, {split}",
                    )  # fmt: skip
            words = ("log-odds of the probe", "main component of the rest") if x == "along" else ("first", "second")
            titles(axis, f"{arm}, layer {mine['layer'].iloc[0]}: {kind}", *words)
    legend(axes[0], loc="best")
    return figure


def steering_figure(run: RunResults) -> Figure | None:
    """How the model's answer moves when the direction is added, beside random directions of the same length."""
    records = pd.DataFrame(run.probes.get("steering", []))
    if records.empty:
        return None
    arms = list(dict.fromkeys(records["arm"]))
    figure, axes = canvas(4.6 * len(arms), 3.6, len(arms), sharey=True)
    for axis, arm in zip(axes, arms, strict=False):
        for direction, colour in (("probe", COLOURS[arm]), ("random", "#999999")):
            for condition, dash in zip(sorted(records["condition"].unique()), DASHES, strict=False):
                rows = records[
                    (records["arm"] == arm) & (records["direction"] == direction) & (records["condition"] == condition)
                ].sort_values("dose")
                axis.errorbar(
                    rows["dose"], rows["change"], yerr=1.96 * rows["error"].astype(float), color=colour, linestyle=dash, marker="o",
                    markersize=4, capsize=2, linewidth=1.4, label=f"{direction}, told: {condition}",
                )  # fmt: skip
        axis.axhline(0, color=INK, linewidth=0.9, linestyle=":")
        titles(
            axis,
            f"{arm}, layer {records.loc[records['arm'] == arm, 'layer'].iloc[0]}",
            "dose (distances between true and false)",
            "change of log-odds of the positive choice",
        )
    legend(axes[-1], loc="upper left")
    return figure


def curve_figure(run: RunResults) -> Figure | None:
    """AUROC on test by the number of groups that are fitted on."""
    records = pd.DataFrame(run.probes["curves"])
    if records.empty:
        return None
    figure, axes = canvas(10.2, 3.6, 2, sharey=True)
    for axis, arm in zip(axes, SHOWN, strict=True):
        for number, (probe, rows) in enumerate(records[records["arm"] == arm].groupby("probe", sort=False)):
            axis.plot(rows["groups"], rows["auroc"], marker="o", markersize=4, label=probe, **style(number))
            axis.fill_between(rows["groups"], rows["low"], rows["high"], color=style(number)["color"], alpha=0.08)
        axis.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
        titles(axis, arm, "groups of questions that are fitted on", f"AUROC for {run.axis}, held-out questions")
    handles, labels = axes[0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside right upper")
    return figure


PROBE_FIGURES = {
    "probe-layers": probe_layers_figure,
    "reliability": reliability_figure,
    "coverage": coverage_figure,
    "epistemic": epistemic_figure,
    "cosines": cosines_figure,
    "projections": projections_figure,
    "steering": steering_figure,
    "curve": curve_figure,
}
