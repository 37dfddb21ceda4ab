"""What several runs say together: each hypothesis over runs, and how AUROC grows with the number of data sets that were trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adapterprobe.evaluate.over_runs import FEWEST, mean_over_runs, shown_over_runs
from adapterprobe.report.figure_style import COLOURS, INK, SPLIT_TITLES, canvas, legend, tip, titles
from adapterprobe.report.run_reader import RunResults

DRAWN = {"train", "data_seed", "max_groups", "labels", "read_by_name"}
"""Keys of `data` in which the draws of a curve over data sets differ."""


def hypotheses_table(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Every hypothesis that at least three runs registered and could tell: its difference in each, and their mean with an interval over runs.
    Of a curve over data sets (see `curve_records`) those of one number by themselves."""
    curve = bool(curve_records(runs))
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, run in runs.items():
        size = str(len(run.config.data.train)) if curve else ""
        for verdict in run.verdicts:
            if verdict["difference"] is not None:
                found.setdefault((verdict["hypothesis"], size), {})[name] = verdict["difference"]
    return pd.DataFrame(
        [
            {
                "hypothesis": text,
                **({"data sets": size} if curve else {}),
                "mean over runs": shown_over_runs(list(values.values()), sign=True),
                "runs": len(values),
                "in how many above 0": sum(value > 0 for value in values.values()),
                "in each": ", ".join(f"{value:+.3f}" for value in values.values()),
            }
            for (text, size), values in found.items()
            if len(values) >= FEWEST
        ]
    )


def curve_records(runs: Mapping[str, RunResults]) -> list[dict]:
    """AUROC on data never trained on by the number of training data sets: a record per run and arm. Empty where the runs do not differ in
    that number, or in anything but what they were trained on, or where their labels were not held equal."""
    sizes = {len(run.config.data.train) for run in runs.values()}
    settings = {
        json.dumps(run.config.model_dump(mode="json", exclude={"data": DRAWN, "name": True}), sort_keys=True)
        for run in runs.values()
    }
    labels = {json.dumps(run.config.data.labels, sort_keys=True) for run in runs.values()}
    if len(sizes) < 2 or len(settings) > 1 or len(labels) > 1 or not next(iter(runs.values())).config.data.labels:
        return []
    return [
        {
            "relations": len(run.config.data.train),
            "draw": run.config.data.data_seed,
            "run": name,
            "arm": arm,
            "auroc": found["estimate"],
        }
        for name, run in runs.items()
        for arm in run.arms
        if (found := run.result("ood", arm)) is not None
    ]


def curve_table(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Arms by number of data sets: mean over draws, and what the most gain over the fewest in the draws that have both; in the last row, how many
    data sets the adapters were really trained on."""
    frame = pd.DataFrame(curve_records(runs))
    if frame.empty:
        return frame
    rows = []
    for arm, mine in frame.groupby("arm", sort=False):
        row: dict[str, object] = {"arm": arm}
        for size, cell in mine.groupby("relations"):
            row[str(size)] = shown_over_runs(cell["auroc"].tolist())
        fewest, most = min(mine["relations"]), max(mine["relations"])
        wide = mine.pivot_table(index="draw", columns="relations", values="auroc")[[fewest, most]].dropna()
        if len(wide):
            gained = wide[most] - wide[fewest]
            row[f"{most} less {fewest}, same draw"] = shown_over_runs(gained.tolist(), sign=True)
        rows.append(row)
    there: dict[str, list[int]] = {}
    for run in runs.values():
        names = {entry["dataset"] for entry in run.about["splits"] if entry["split"] == "adapter-train"}
        there.setdefault(str(len(run.config.data.train)), []).append(len(names))
    rows.append({"arm": "data sets in adapter-train"} | {size: f"{np.mean(n):.3g}" for size, n in there.items()})
    return pd.DataFrame(rows).fillna("–")


def curve_figure(runs: Mapping[str, RunResults]) -> Figure | None:
    """Mean over draws by number of data sets, each draw a dot."""
    frame = pd.DataFrame(curve_records(runs))
    if frame.empty:
        return None
    figure, (axis,) = canvas(7.4, 4.4)
    sizes = sorted(set(frame["relations"]))
    arms = list(dict.fromkeys(frame["arm"]))
    for number, arm in enumerate(arms):
        mine = frame[frame["arm"] == arm]
        colour = COLOURS[arm]
        # Beside each other, so that dots of one number are told apart.
        place = {size: at + 0.05 * (number - (len(arms) - 1) / 2) for at, size in enumerate(sizes)}
        means = mine.groupby("relations")["auroc"].mean()
        axis.plot([place[s] for s in means.index], means, color=colour, linewidth=1.6, label=arm)
        for size in means.index:
            values = mine.loc[mine["relations"] == size, "auroc"].tolist()
            interval = mean_over_runs(values)
            (dots,) = axis.plot([place[size]] * len(values), values, "o", color=colour, markersize=4)
            tip(figure, dots, f"{arm}, {size} data sets: {shown_over_runs(values)}")
            if np.isfinite(interval.low):
                low, high = max(0.0, interval.low), min(1.0, interval.high)
                axis.plot([place[size]] * 2, [low, high], color=colour, linewidth=0.8, alpha=0.5)
    axis.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    titles(axis, SPLIT_TITLES["ood"], "data sets that were trained on, at equal labels", "AUROC (0.5: chance)")
    legend(axis, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
