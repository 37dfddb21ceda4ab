"""Tables and sentences about probes, each with its figure."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from adapterprobe.evaluate.thresholds import BENIGN, CARRIED, CROSS_FITTED, UNLABELLED, WORST, summary
from adapterprobe.report.figure_style import splits_of
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import shown

COMPARED = ("base+probe@matched", "adapter+probe")


@dataclass(frozen=True)
class Section:
    """A part of the report: title, name of its figure, table, and what is to be known to read them."""

    title: str
    figure: str | None
    table: pd.DataFrame | None
    text: str


def probes_table(run: RunResults) -> pd.DataFrame:
    """Every probe of every probe arm."""
    rows = []
    for arm in run.arms:
        if "probe" not in arm:
            continue
        for probe in (spec.label for spec in run.config.probe_specs):
            chosen = [s for s in run.about["selected"] if s["arm"] == arm and s["probe"] == probe]
            if not chosen:
                continue
            row = {"arm": arm, "probe": probe}
            for split in splits_of(run):
                row[f"{split} AUROC"] = shown(run.result(split, arm, probe=probe))
            row["layer (by seed)"] = ", ".join(str(s["layer"]) for s in chosen)
            row["fitted on"] = f"{chosen[0]['fitted_on']} prompts"
            row["fits tried"] = chosen[0]["tried"]
            row["seconds"] = f"{sum(s['seconds'] for s in chosen) / len(chosen):.1f}"
            rows.append(row)
    return pd.DataFrame(rows)


def notes(run: RunResults) -> list[str]:
    """What was left out, and guarantees that fail."""
    found = [f"{left['probe']} is left out of {left['arm']}: {left['reason']}" for left in run.about["left_out"]]
    records = [r for r in run.probes["conformal"] if r.get("probe") == run.config.evaluate.probe and "holds" in r]
    wanted = run.config.evaluate.coverage
    for arm in COMPARED:
        failing = sorted(
            {
                r["dataset"]
                for r in records
                if r["arm"] == arm and r["kind"] == "sets" and r["nominal"] == wanted and not r["holds"]
            }
        )
        if failing:
            found.append(
                f"{arm}: sets that are to cover {wanted:.0%} surely cover less on {', '.join(failing)}. What they are calibrated on is "
                "not exchangeable with these; the guarantee does not reach there."
            )
        alarms = sorted(
            {r["dataset"] for r in records if r["arm"] == arm and r["kind"] == "threshold" and not r["holds"]}
        )
        if alarms:
            found.append(
                f"{arm}: the threshold for {run.config.evaluate.false_positive_rate:.0%} false positives surely has more on "
                f"{', '.join(alarms)}."
            )
    return found


def sections(run: RunResults) -> list[Section]:
    """All parts in order; those without anything to show are left out."""
    made = [
        Section(
            "Every probe by layer",
            "probe-layers",
            None,
            "A probe that sees several layers at once is a dot at the last of them. Layers are never chosen by these curves.",
        ),
        _calibration(run),
        _coverage(run),
        _alarms(run),
        _thresholds(run),
        _soft(run),
        _flagging(run),
        _curve(run),
        _nested(run),
        *_directions(run),
    ]
    return [section for section in made if section is not None]


def _calibration(run: RunResults) -> Section:
    records = pd.DataFrame(run.probes["calibration"])
    records = records[records["probe"].isna() | (records["probe"] == run.config.evaluate.probe)]
    rows = []
    for (arm, split), part in records.groupby(["arm", "split"], sort=False):
        row = {"arm": arm, "split": split}
        for method, same in part.groupby("method", sort=False):
            row[str(method)] = f"{same['ece'].mean():.3f} / {same['brier'].mean():.3f}"
        rows.append(row)
    count = int(records["fitted_on_groups"].iloc[0])
    text = (
        "Expected calibration error / Brier score, averaged over data sets and seeds. Maps are fitted on one half of the groups of "
        f"calibrate ({count}). In the figure, solid lines are calibrated."
    )
    return Section("Calibration", "reliability", pd.DataFrame(rows), text)


def _coverage(run: RunResults) -> Section:
    wanted = run.config.evaluate.coverage
    records = [
        r
        for r in run.probes["conformal"]
        if r.get("probe") == run.config.evaluate.probe and r["nominal"] == wanted and r["arm"] in COMPARED
    ]
    rows = []
    for r in records:
        if r["kind"] == "sets":
            answered = r["right_of_answered"]
            rows.append(
                {
                    "arm": r["arm"],
                    "sets": r["method"],
                    "data set": f"{r['dataset']} ({r['split']})",
                    "coverage": f"{r['coverage']:.2f} [{r['coverage_low']:.2f}, {r['coverage_high']:.2f}]",
                    f"of {run.classes[0]} / of {run.classes[1]}": f"{r['coverage_0']:.2f} / {r['coverage_1']:.2f}",
                    "don't know": f"{r['abstains']:.0%}",
                    "right of the rest": "–" if answered is None else f"{answered:.0%}",
                    "holds": "yes" if r["holds"] else "NO",
                }
            )
    refused = sorted({f"{r['kind']}: {r['refused']}" for r in records if "refused" in r})
    text = (
        f"Conformal sets that are to hold the right label in {wanted:.0%} of new groups, calibrated on the other half of calibrate, one "
        "row of a group. A set of both labels or of none is the answer don't know. Class-conditional sets promise it for both labels "
        "alike. Holds: the measured interval reaches the promise. Out of distribution nothing is promised, and even held-out "
        "questions are put in other words than those of calibrate."
    )
    if refused:
        text += " Refused: " + "; ".join(refused) + "."
    return Section("Conformal sets: one answer, or don't know", "coverage", pd.DataFrame(rows) if rows else None, text)


def _alarms(run: RunResults) -> Section:
    rate = run.config.evaluate.false_positive_rate
    rows, refused = [], set()
    for r in run.probes["conformal"]:
        if r["kind"] != "threshold" or r.get("probe") not in (None, run.config.evaluate.probe):
            continue
        if "refused" in r:
            refused.add(r["refused"])
            continue
        if r["arm"] not in ("base", "adapter", *COMPARED):
            continue
        rows.append(
            {
                "arm": r["arm"],
                "data set": f"{r['dataset']} ({r['split']})",
                "false positives": f"{r['false_alarms']:.2f} [{r['false_alarms_low']:.2f}, {r['false_alarms_high']:.2f}]",
                "recall": f"{r['recall']:.2f} [{r['recall_low']:.2f}, {r['recall_high']:.2f}]",
                "holds": "yes" if r["holds"] else "NO",
            }
        )
    text = f"The threshold that a new false statement exceeds with a chance of at most {rate:.0%}, on average over draws of what it is set by."
    if refused:
        text += " Refused: " + "; ".join(sorted(refused)) + "."
    return Section("A threshold with a guarantee", None, pd.DataFrame(rows) if rows else None, text)


WAYS = {
    CARRIED: "carried: set by the run's own negatives (calibrate)",
    CROSS_FITTED: "cross-fitted: set by all negatives that nothing was trained on",
    WORST: "worst case: the highest that a training relation asks for when it is left out",
    UNLABELLED: "unlabelled rows of the new data, with the assumed base rate",
    BENIGN: "benign rows of the new data",
}
"""What the report calls ways of fixing a threshold, in the order of what they need."""


def _thresholds(run: RunResults) -> Section | None:
    records = [r for r in run.probes.get("thresholds", []) if r["split"] == "ood" or r["way"] != WORST]
    rate, rows, refused = run.config.evaluate.false_positive_rate, [], set()
    at_most, near = f"at most {200 * rate:.3g} %", f"{50 * rate:.3g} to {150 * rate:.3g} %"
    for arm in dict.fromkeys(r["arm"] for r in records if r["arm"] in ("base", "adapter", *COMPARED)):
        for way, words in WAYS.items():
            mine = [r for r in records if r["arm"] == arm and r["way"] == way]
            row = {"arm": arm, "fixed by": words}
            for r in mine:
                if "refused" in r:
                    refused.add(f"{way}: {r['refused']}")
                    continue
                recall = "" if r["recall"] is None else f"; recall {r['recall']:.2f}"
                row[f"{r['dataset']} ({r['split']})"] = (
                    f"{r['false_alarms']:.2f} [{r['low']:.2f}, {r['high']:.2f}]{recall}"
                )
            over = summary([r for r in mine if r["split"] == "ood"], way)
            if over:
                n = over["datasets"]
                row[at_most] = f"{over['at_most_twice']} of {n}"
                row[near] = f"{over['near']} of {n}"
                row["highest"] = f"{over['highest']:.2f}"
            if len(row) > 2:
                rows.append(row)
    if not rows:
        return None
    text = (
        f"{rate:.0%} of {run.classes[0]} rows may be above it: what was got, of the lowest seed's main probe. Intervals are exact, each group "
        f"one draw. Rows of new data are judged by thresholds that other groups of them fixed; base rate {run.config.evaluate.base_rate:g}."
    )
    if refused:
        text += " Refused: " + "; ".join(sorted(refused)) + "."
    table = pd.DataFrame(rows).fillna("–")
    # A way that is refused on the first data set would else put its columns last.
    counts = [c for c in (at_most, near, "highest") if c in table]
    if counts:
        text += " The last columns count data sets that nothing was trained on: a rate of at most twice the one asked for, one near it, and the highest."
    table = table[[c for c in table if c not in counts] + counts]
    return Section("Thresholds on data never trained on", None, table, text)


def _soft(run: RunResults) -> Section | None:
    records = run.probes["soft"]
    if not records:
        return None
    rows = [
        {
            "model": "adapter off" if r["arm"] == "base+probe" else "adapter on",
            "data set": f"{r['dataset']} ({r['split']})",
            "coverage": f"{r['coverage']:.2f} [{r['low']:.2f}, {r['high']:.2f}]",
            "mean width": f"{r['width']:.2f}",
            "holds": "yes" if r["holds"] else "NO",
        }
        for r in records
        if "refused" not in r
    ]
    text = (
        "Intervals for the model's own probability of the positive answer, read off its states at the main probe's layer: quantile "
        f"regression, made conformal. {run.config.evaluate.coverage:.0%} is promised on held-out questions."
    )
    refused = sorted({r["refused"] for r in records if "refused" in r})
    if refused:
        text += " Refused: " + "; ".join(refused) + "."
    return Section("What the model will say", None, pd.DataFrame(rows) if rows else None, text)


def _flagging(run: RunResults) -> Section | None:
    rows = [
        {
            "arm": r["arm"],
            "probe": r["probe"],
            "measure": r["measure"].replace("_", " "),
            "data set": r["dataset"],
            "AUROC of flagging it": f"{r['auroc']:.2f} [{r['low']:.2f}, {r['high']:.2f}]",
            "mean, test": f"{r['inside']:.3g}",
            "mean, there": f"{r['outside']:.3g}",
        }
        for r in run.probes["flagging"]
        if r["arm"] in COMPARED
    ]
    if not rows:
        return None
    text = (
        "Is a probe unsure where it has seen nothing like it? AUROC of telling prompts of each out-of-distribution data set from "
        "held-out ones by its uncertainty. Epistemic: what more data would tell; aleatoric: what no data would. The figure shows "
        "base+probe@matched, thick where in distribution."
    )
    return Section("Epistemic and aleatoric uncertainty", "epistemic", pd.DataFrame(rows), text)


def _curve(run: RunResults) -> Section | None:
    if not run.probes["curves"]:
        return None
    text = (
        "Fitted again on shares of the groups, at the layer and setting chosen with all of them; bands are the lowest and highest of "
        "the draws. A curve that still rises says that more labels would help."
    )
    return Section("Would more labels help?", "curve", None, text)


def _nested(run: RunResults) -> Section | None:
    rows = [
        {
            "arm": r["arm"],
            "probe": r["probe"],
            "AUROC": f"{r['auroc']:.3f}",
            "standard error": "–" if r["error"] is None else f"{r['error']:.3f}",
            "folds": r["folds"],
        }
        for r in run.probes["nested"]
    ]
    text = (
        "Over the groups that are fitted on alone, whose prompts have the templates that probes are fitted on: what is lost from here to "
        "the test split is lost to new wordings."
    )
    return Section("Nested cross-validation", None, pd.DataFrame(rows), text) if rows else None


def _directions(run: RunResults) -> list[Section]:
    if "steering" not in run.probes:
        return []
    made = [
        Section(
            "Directions",
            "cosines",
            None,
            "Cosine similarity of the directions in which log-odds of truth rise: between linear probes at one layer, between layers "
            "(the main probe), and with the adapter off and on. Directions of unlike scale of features may differ and score alike.",
        ),
        Section(
            "Where the states are",
            "projections",
            None,
            "Judged prompts. Main components are those of what probes are fitted on. The probe's plane: its log-odds, against the main "
            "component of what is left without its direction.",
        ),
    ]
    if run.probes["steering"]:
        made.append(
            Section(
                "Does the direction matter to the model?",
                "steering",
                None,
                "The main probe's direction is added to the state at the answer position of held-out prompts, at the probe's layer, in "
                "doses of the distance between the means of true and false. If the model answers by it, yes becomes likelier with the "
                "dose, and random directions of the same length do nothing. Bars are 95 % intervals over groups.",
            )
        )
    return made
