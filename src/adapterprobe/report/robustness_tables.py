"""Tables of what detectors are held against, and which of them something simpler explains."""

from __future__ import annotations

import pandas as pd

from adapterprobe.evaluate.controls import SWAPPED
from adapterprobe.evaluate.schema import WITHHELD_OF
from adapterprobe.report.figure_style import splits_of
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import shown
from adapterprobe.types import CLAIM


def explained(run: RunResults) -> dict[str, list[str]]:
    """By arm, the controls that do as well as it does: shuffled labels, random directions or a worthless adapter that it does
    not exceed, or something that sees the prompt alone, tells more than chance, and reaches its lower bound."""
    found: dict[str, list[str]] = {arm: [] for arm in run.arms}
    for control in run.controls:
        if control["met"] or control["control"] == SWAPPED:
            continue
        name = f"{control['control']} ({control['split']})"
        if control["arm"]:
            if control["arm"] in found and control["probe"] in (None, run.config.evaluate.probe):
                found[control["arm"]].append(name)
            continue
        reach = max(control["auroc"], 1 - control["auroc"])
        for arm in run.arms:
            record = run.result(control["split"], arm)
            if record is not None and record["low"] is not None and reach >= record["low"]:
                found[arm].append(name)
    return {arm: names for arm, names in found.items() if names}


def gaps_table(run: RunResults) -> pd.DataFrame:
    """What each arm loses on each data set it was not trained on, and the false alarms at the threshold that was carried there."""
    rows = []
    if splits_of(run) != ["test", "ood"]:
        return pd.DataFrame()
    datasets = sorted(set(run.results.loc[run.results["split"] == "ood", "dataset"]) - {"mean"})
    for arm in run.arms:
        row = {"arm": arm}
        home = run.result("test", arm, "false_positive_rate")
        row["false positives, test"] = shown(home, 2)
        for dataset in datasets:
            row[f"AUROC lost on {dataset}"] = shown(run.result("ood", arm, "auroc_gap", dataset=dataset), 2)
            row[f"false positives, {dataset}"] = shown(
                run.result("ood", arm, "false_positive_rate", dataset=dataset), 2
            )
        rows.append(row)
    return pd.DataFrame(rows)


def shifts_table(run: RunResults) -> pd.DataFrame:
    """Each arm in each way of asking, with its paired difference from the same questions as they were asked."""
    return pd.DataFrame(
        [
            {
                "way": r["shift"],
                "arm": r["arm"],
                "AUROC": f"{r['auroc']:.3f} [{r['low']:.3f}, {r['high']:.3f}]",
                "as asked": f"{r['as_asked']:.3f}",
                "difference": f"{r['difference']:+.3f} [{r['difference_low']:+.3f}, {r['difference_high']:+.3f}]",
                "bal. acc. at the carried threshold": "–"
                if r["balanced_accuracy"] is None
                else f"{r['balanced_accuracy']:.2f}",
                "groups": r["n_groups"],
                "surely above 0.5": "yes" if r["met"] else "NO",
            }
            for r in run.challenge["shifts"]
        ]
    )


def polarity_table(run: RunResults) -> pd.DataFrame:
    """Of every detector whose questions were asked both ways: AUROC for the truth of the answer and of the claim."""
    records = run.challenge.get("polarity", [])
    rows: dict[tuple, dict] = {}
    for r in records:
        row = rows.setdefault(
            (r["split"], r["arm"], r["probe"]), {"split": r["split"], "arm": r["arm"], "probe": r["probe"] or "–"}
        )
        what = "claim" if r["axis"] == CLAIM else "answer"
        row[f"{what}, {r['polarity']}"] = f"{r['auroc']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
    table = pd.DataFrame(list(rows.values()))
    # Of affirmed questions the two are the same, of negated ones the opposite.
    return table.drop(columns=[c for c in ("claim, affirmed", "claim, negated") if c in table])


def answers_table(run: RunResults) -> pd.DataFrame:
    """How often the adapter changed the model's answer."""
    return pd.DataFrame(
        [
            {
                "seed": str(r["seed"]),
                "prompts": f"{r['split']}, {r['condition']}",
                "answers changed": f"{r['changed']:.0%} [{r['low']:.0%}, {r['high']:.0%}]",
                "right with the adapter off": f"{r['right_off']:.0%}",
                "right with it on": f"{r['right_on']:.0%}",
                "n": r["prompts"],
            }
            for r in run.challenge["integrity"]["answers"]
        ]
    )


def swapped_notes(run: RunResults) -> list[str]:
    """Arms that tell the label of a context by another context's reply."""
    return [
        f"{c['arm']} goes by the context: with every reply swapped for that of another context it still tells the context's label, "
        f"{c['auroc']:.2f} [{c['low']:.2f}, {c['high']:.2f}]."
        for c in run.controls
        if c["control"] == SWAPPED and not c["met"] and c["probe"] in (None, run.config.evaluate.probe)
    ]


def swapped_table(run: RunResults) -> pd.DataFrame:
    """AUROC by whose label, where every context has the reply of another one."""
    return pd.DataFrame(
        [
            {
                "arm": r["arm"],
                "as sent": f"{r['as_sent']:.3f}",
                "label of the context": f"{r['context']['auroc']:.3f} [{r['context']['low']:.3f}, {r['context']['high']:.3f}]",
                "label of the reply": f"{r['reply']['auroc']:.3f} [{r['reply']['low']:.3f}, {r['reply']['high']:.3f}]",
                "n": r["n"],
            }
            for r in run.challenge.get("swapped", [])
            if r["arm"] not in WITHHELD_OF.values()
        ]
    )


WORTHLESS = ("random adapter", "adapter of shuffled labels")


def notes(run: RunResults) -> list[str]:
    """What a reader must not miss in these tables."""
    found = swapped_notes(run)
    for arm, names in explained(run).items():
        if arm in WITHHELD_OF.values():
            # It is a control itself.
            continue
        worthless = [name for name in names if name.startswith(WORTHLESS)]
        others = [name for name in names if name not in worthless]
        if worthless:
            found.append(
                f"{arm} is explained by a control: it does not surely exceed what a worthless adapter gives "
                f"({', '.join(worthless)}), so what it has there is not what the adapter learned."
            )
        if others:
            found.append(
                f"{arm} is explained by a control that does as well: {', '.join(others)}. Do not take it for knowledge of {'what the reply hides' if run.of_replies else 'the truth'}."
            )
    ways = pd.DataFrame(run.challenge["shifts"])
    for way, part in ways.groupby("shift", sort=False) if len(ways) else []:
        able = part[part["as_asked"] > 0.55]
        turned = able[able["high"] < 0.5]
        lost = able[~able["met"] & (able["high"] >= 0.5)]
        if len(turned):
            found.append(
                f"Turned round by '{way}' (lowest seed): {_listed(turned)}."
                + (
                    " They tell whether the claim is true, whatever is asked about it, and not whether yes would be the true answer."
                    if way == "negated"
                    else ""
                )
            )
        if len(lost):
            found.append(f"Lost when asked in the way '{way}' (lowest seed): {_listed(lost)}.")
    for entry in run.challenge["not_asked"]:
        found.append(f"Not asked in the way '{entry['shift']}': {entry['reason']}.")
    if not run.config.evaluate.adapter_controls:
        found.append("The adapter was not held against worthless adapters (evaluate.adapter_controls is off).")
    return found


def _listed(part: pd.DataFrame) -> str:
    return ", ".join(f"{arm} {auroc:.2f}" for arm, auroc in zip(part["arm"], part["auroc"], strict=True))
