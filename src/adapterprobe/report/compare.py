"""Several runs in one report: what differs between them, every arm of each, and how far what was learned carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adapterprobe.cache import write_atomic
from adapterprobe.evaluate.compare import Side, difference_records
from adapterprobe.report.figure_style import (
    COLOURS,
    INK,
    SPLIT_TITLES,
    canvas,
    legend,
    tip,
    titles,
)
from adapterprobe.report.markdown import harmless, to_markdown
from adapterprobe.report.over_runs import curve_figure, curve_table, hypotheses_table
from adapterprobe.report.page import draw_all, render_page
from adapterprobe.report.robustness_figures import heat
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import shown
from adapterprobe.terminal import printable

CARRIED = ("base", "adapter", "base+probe", "base+probe@matched", "adapter+probe")
"""Arms whose transfer is drawn."""
FIGURES = {"Carried over": "transfer", "By number of data sets": "relations"}
"""Figures above tables, by the tables' titles."""


def flat(content: dict, prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys and short texts."""
    found = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return found


def settings_table(runs: dict[str, RunResults]) -> pd.DataFrame:
    """What the runs' configurations differ in."""
    contents = {name: flat(run.config.model_dump(mode="json")) for name, run in runs.items()}
    keys = sorted({key for content in contents.values() for key in content} - {"name"})
    told = [k for k in keys if len({content.get(k) for content in contents.values()}) > 1]
    rows = []
    for name, run in runs.items():
        row = {"run": name, "model": run.about["model"]["name"]}
        row |= {key: contents[name].get(key, "–") for key in told if key != "model.name"}
        rows.append(row)
    return pd.DataFrame(rows)


def arms_table(runs: dict[str, RunResults]) -> pd.DataFrame:
    """AUROC of every arm of every run, held out and on average never trained on."""
    rows = []
    for name, run in runs.items():
        for arm in run.arms:
            row = {"run": name, "arm": arm, "probe": run.probe_of(arm) or "own answer"}
            for split in ("test", "ood"):
                row[SPLIT_TITLES[split]] = shown(run.result(split, arm))
            rows.append(row)
    return pd.DataFrame(rows)


def differences_table(records: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": r["run"],
                "less": r["less"],
                "split": r["split"],
                "arm": r["arm"],
                "difference in AUROC": f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]",
                "p (Holm)": f"{r['p_adjusted']:.3f}",
                "groups": r["n_groups"],
                "data sets": ", ".join(r["datasets"]),
                "same prompts": "yes" if r["paired"] else "no",
            }
            for r in records
        ]
    )


def matrix(runs: dict[str, RunResults], arm: str, metric: str = "auroc") -> pd.DataFrame:
    """Runs x data sets: a metric's record on held-out questions of what a run was trained on, else on a data set that it was
    not; None where it was not judged there."""
    # In the order of the runs, so that what each was trained on stands on the diagonal.
    order = [
        sorted(set(run.results.loc[run.results["split"] == split, "dataset"]))
        for split in ("test", "ood")
        for run in runs.values()
    ]
    datasets = [d for d in dict.fromkeys(d for names in order for d in names) if d != "mean"]
    cells = {
        name: {
            d: run.result("test", arm, metric, dataset=d) or run.result("ood", arm, metric, dataset=d) for d in datasets
        }
        for name, run in runs.items()
    }
    return pd.DataFrame.from_dict(cells, orient="index", columns=datasets).astype(object)


def transfer_table(runs: dict[str, RunResults]) -> pd.DataFrame:
    """Each arm's AUROC and carried false positive rate on every data set, by run."""
    rows = []
    for arm in (a for a in CARRIED if any(a in run.arms for run in runs.values())):
        aurocs, alarms = matrix(runs, arm), matrix(runs, arm, "false_positive_rate")
        for name in runs:
            for dataset in aurocs.columns:
                record: Any = aurocs.loc[name, dataset]
                if isinstance(record, dict):
                    alarm = alarms.loc[name, dataset]
                    rows.append(
                        {
                            "run": name,
                            "arm": arm,
                            "data set": dataset,
                            "": "held out" if record["split"] == "test" else "never trained on",
                            "AUROC": shown(record),
                            "false positives at the carried threshold": shown(
                                alarm if isinstance(alarm, dict) else None, 2
                            ),
                        }
                    )
    return pd.DataFrame(rows)


def carried_means(runs: dict[str, RunResults]) -> pd.DataFrame:
    """Means of the transfer matrix of each arm: where it was trained, and elsewhere."""
    rows = []
    for arm in (a for a in CARRIED if all(a in run.arms for run in runs.values())):
        records = [r for r in matrix(runs, arm).to_numpy().ravel() if isinstance(r, dict)]
        home = [r["estimate"] for r in records if r["split"] == "test"]
        away = [r["estimate"] for r in records if r["split"] == "ood"]
        rows.append(
            {
                "arm": arm,
                "held out, mean over runs": f"{np.mean(home):.3f}" if home else "–",
                "never trained on, mean": f"{np.mean(away):.3f}" if away else "–",
                "worst": f"{min(away):.3f}" if away else "–",
                "cells": f"{len(home)} + {len(away)}",
            }
        )
    return pd.DataFrame(rows)


def arms_figure(runs: dict[str, RunResults]) -> Figure:
    """Every arm of every run with its 95 % interval."""
    arms = list(dict.fromkeys(arm for run in runs.values() for arm in run.arms))
    figure, axes = canvas(9.8, 0.14 * len(arms) * len(runs) + 0.25 * len(runs) + 1.2, 2, sharey=True, sharex=True)
    for axis, split in zip(axes, ("test", "ood"), strict=True):
        for place, (name, run) in enumerate(runs.items()):
            for number, arm in enumerate(arms):
                record = run.result(split, arm) if arm in run.arms else None
                if record is None:
                    continue
                height = -place + 0.4 - 0.8 * (number + 0.5) / len(arms)
                axis.plot([record["low"], record["high"]], [height, height], color=COLOURS[arm], linewidth=2)
                (dot,) = axis.plot(
                    record["estimate"], height, "o", color=COLOURS[arm], markersize=5, label=arm if place == 0 else None
                )
                tip(figure, dot, f"{name}, {arm}, {split}: {shown(record)}")
        axis.axvline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axis.set_yticks(range(0, -len(runs), -1), list(runs))
        titles(axis, SPLIT_TITLES[split], "AUROC for truth (0.5: chance)")
    legend(axes[-1], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def transfer_figure(runs: dict[str, RunResults]) -> Figure | None:
    """Heat maps: rows are what was trained on, columns what is judged; held-out questions of the same are framed."""
    arms = [a for a in CARRIED if all(a in run.arms for run in runs.values())]
    columns = matrix(runs, arms[0]).columns if arms else []
    if len(columns) < 2:
        return None
    figure, axes = canvas(
        max(2.2, 0.62 * len(columns)) * len(arms) + 1.6, 0.42 * len(runs) + 1.6, len(arms), sharey=True
    )
    for axis, arm in zip(axes, arms, strict=False):
        cells = matrix(runs, arm)
        values = np.array(
            [[r["estimate"] if isinstance(r, dict) else np.nan for r in row] for row in cells.to_numpy()], float
        )
        heat(axis, values, list(cells.index), list(columns), arm)
        axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=60, ha="right")
        for row, column in np.argwhere(
            [[isinstance(r, dict) and r["split"] == "test" for r in line] for line in cells.to_numpy()]
        ):
            axis.plot(
                [column, column + 1, column + 1, column, column],
                [row, row, row + 1, row + 1, row],
                color=INK,
                linewidth=2,
                clip_on=False,
            )
    return figure


def write_comparison(runs: dict[str, RunResults], out: Path, failed: Sequence[dict] = ()) -> list[dict]:
    """Write `report.html`, `report.md`, `compare.json` and figures. Returns the differences from the first run."""
    sides = [Side.of(name, run.predictions, run.config.evaluate.probe) for name, run in runs.items()]
    records = difference_records(sides, max(run.config.evaluate.resamples for run in runs.values()))
    drawn = draw_all({"arms": arms_figure, "transfer": transfer_figure, "relations": curve_figure}, runs, out)
    tables = {
        "What differs": settings_table(runs),
        "By number of data sets": curve_table(runs),
        "Hypotheses over runs": hypotheses_table(runs),
        "Arms": arms_table(runs),
        "Differences": differences_table(records),
        "Carried over": carried_means(runs),
        "On each data set": transfer_table(runs),
    }
    sentence = headline(runs, records)
    html = render_page(
        "compare.html.j2",
        tables={title: table for title, table in tables.items() if not table.empty},
        figures=drawn,
        headline=sentence,
        failed=failed,
    )
    write_atomic(out / "report.html", html)
    parts = [f"# {len(runs)} runs side by side", harmless(sentence), "![Every arm](figures/arms.png)"]
    parts += [f"- {harmless(f['run'])} failed: {harmless(f['reason'])}" for f in failed]
    for title, table in tables.items():
        if not table.empty:
            figure = FIGURES.get(title)
            shown_here = [f"![{title}](figures/{figure}.png)"] if figure in drawn else []
            parts += [f"## {title}", *shown_here, to_markdown(table)]
    write_atomic(out / "report.md", printable("\n\n".join(parts) + "\n"))
    content = {
        "runs": {name: str(run.folder) for name, run in runs.items()},
        "differences": records,
        "failed": list(failed),
    }
    write_atomic(out / "compare.json", json.dumps(content, indent=1))
    return records


def headline(runs: dict[str, RunResults], records: list[dict]) -> str:
    """The best arm of all, and how many differences from the first run stand."""
    split = "ood" if any(run.result("ood", "base") for run in runs.values()) else "test"
    best = max(
        ((record, name, arm) for name, run in runs.items() for arm in run.arms if (record := run.result(split, arm))),
        key=lambda found: found[0]["estimate"],
    )
    where = SPLIT_TITLES[split].lower()
    sure = sum(r["p_adjusted"] < 0.05 for r in records)
    return (
        f"Of {len(runs)} runs, the highest AUROC for truth on {where} is {best[2]}'s in {best[1]}, {shown(best[0], 2)}. "
        f"{sure} of {len(records)} differences from {next(iter(runs))} are beyond chance (Holm-adjusted p below 0.05)."
    )
