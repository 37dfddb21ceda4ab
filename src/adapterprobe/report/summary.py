"""The tables and sentences that both the page and the Markdown show."""

from __future__ import annotations

import pandas as pd

from adapterprobe.evaluate.controls import SWAPPED
from adapterprobe.evaluate.schema import HEAD, TFIDF
from adapterprobe.report.figure_style import splits_of
from adapterprobe.report.run_reader import RunResults
from adapterprobe.types import AXES

MANY = 6
"""Data sets of a split beyond which a table has rows for them, not columns."""
METRICS = {
    "auroc": "AUROC",
    "auroc_within_template": "AUROC within one wording",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "majority": "majority baseline",
    "recall_at_5pct_fpr": "recall at 5 % FPR",
    "recall_at_1pct_fpr": "recall at 1 % FPR",
    "ece": "ECE",
    "brier": "Brier",
}


def shown(record: dict | None, digits: int = 3) -> str:
    """`0.912 [0.871, 0.942]`, or a dash."""
    if record is None:
        return "–"
    return f"{record['estimate']:.{digits}f} [{record['low']:.{digits}f}, {record['high']:.{digits}f}]"


def alarms(record: dict | None) -> str:
    """How many false alarms a recall stands on (lowest seed); empty for other metrics."""
    if record is None or record.get("alarms") is None or record["alarms"] != record["alarms"]:
        return ""
    return f" ({int(record['alarms'])} false alarms of {int(record['negatives'])})"


def is_inverted(record: dict | None) -> bool:
    """Whether an AUROC is surely below 0.5: the detector says the opposite of what it was made to say."""
    return record is not None and record["high"] is not None and record["high"] < 0.5


def inverted(run: RunResults, split: str) -> dict[str, dict[str, dict]]:
    """By data set, the arms whose AUROC for truth is surely below 0.5 there, with their records."""
    found: dict[str, dict[str, dict]] = {}
    for dataset in sorted(set(run.results.loc[run.results["split"] == split, "dataset"]) - {"mean"}):
        for arm in run.arms:
            record = run.result(split, arm, dataset=dataset)
            if record is not None and is_inverted(record):
                found.setdefault(dataset, {})[arm] = record
    return found


def gap(verdict: dict) -> str:
    """The difference that a verdict is about, with its interval."""
    if verdict["difference"] is None:
        return "cannot be told: too few of one class"
    return f"{verdict['difference']:+.3f} [{verdict['low']:+.3f}, {verdict['high']:+.3f}]"


def arms_table(run: RunResults) -> pd.DataFrame:
    """AUROC and balanced accuracy of every arm on every judged data set, and on average; of many data sets on average alone (see
    `data_sets_table`)."""
    rows = []
    for arm in run.arms:
        row = {
            "arm": arm,
            "probe": run.probe_of(arm) or {HEAD: "its head", TFIDF: "words alone"}.get(arm, "own answer"),
        }
        for split in splits_of(run):
            datasets = _data_sets(run, split)
            if _has_many(run, split):
                datasets = ["mean"]
            for dataset in sorted(datasets, key=lambda d: (d == "mean", d)):
                where = f"{split}: {dataset if dataset != 'mean' else 'average'}"
                record = run.result(split, arm, dataset=dataset)
                row[f"{where} AUROC"] = shown(record) + (" INVERTED" if is_inverted(record) else "")
                row[f"{where} bal. acc."] = shown(run.result(split, arm, "balanced_accuracy", dataset=dataset), 2)
            row[f"{where} AUROC within one wording"] = shown(
                run.result(split, arm, "auroc_within_template", dataset=dataset)
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _data_sets(run: RunResults, split: str) -> list[str]:
    """Those of a split, and their `mean`."""
    return list(run.results[run.results["split"] == split]["dataset"].unique())


def _has_many(run: RunResults, split: str) -> bool:
    return len(set(_data_sets(run, split)) - {"mean"}) > MANY


def data_sets_table(run: RunResults) -> pd.DataFrame:
    """AUROC of every arm on each data set, a row for each; empty where the table of arms has them all."""
    many = [split for split in splits_of(run) if _has_many(run, split)]
    rows = []
    for split in many:
        for dataset in sorted(set(_data_sets(run, split)) - {"mean"}):
            records = {arm: run.result(split, arm, dataset=dataset) for arm in run.arms}
            groups = next((r["n_groups"] for r in records.values() if r is not None), None)
            cells = {arm: shown(r, 2) + (" INVERTED" if is_inverted(r) else "") for arm, r in records.items()}
            rows.append({"data set": dataset, "split": split, "groups": groups} | cells)
    return pd.DataFrame(rows)


def metrics_table(run: RunResults, split: str) -> pd.DataFrame:
    """All metrics of all arms on one split, averaged over data sets and conditions."""
    rows = []
    for arm in run.arms:
        row = {"arm": arm}
        for metric, title in METRICS.items():
            record = run.result(split, arm, metric)
            row[title] = shown(record) + alarms(record)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "–").any()]


def axes_table(run: RunResults, split: str) -> pd.DataFrame:
    """What each arm really detects: AUROC against each label axis."""
    rows = []
    for arm in run.arms:
        row = {"arm": arm}
        for axis in AXES:
            text = shown(run.result(split, arm, axis=axis), 2)
            if arm in run.about["by_construction"] and axis == "behaviour" and text != "–":
                text += " (by construction)"
            row[axis] = text
        row["lie, all conditions together"] = shown(
            run.result(split, arm, "auroc_pooled", axis="lie", condition="pooled"), 2
        )
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "–").any()]


def unscored_axes(run: RunResults) -> list[str]:
    """Label axes that no arm could be scored against, on any split."""
    return [
        name
        for name in AXES
        if all(run.result(split, arm, axis=name) is None for split in splits_of(run) for arm in run.arms)
    ]


def axes_note(run: RunResults) -> str | None:
    """Why an axis is missing from the matrix."""
    reasons = {
        "behaviour": "the model under test answers nearly all prompts of a condition alike",
        "lie": f"too few questions of which it is {run.config.evaluate.belief} what the model holds true, or too few lies among them",
    }
    missing = [f"{name} ({reasons.get(name, 'too few of either kind')})" for name in unscored_axes(run)]
    return f"Not scored: {'; '.join(missing)}." if missing else None


def conditions_table(run: RunResults) -> pd.DataFrame:
    """AUROC for truth by the prompt's condition."""
    rows = []
    for arm in run.arms:
        row = {"arm": arm}
        for split in splits_of(run):
            for condition in run.config.elicit.conditions:
                row[f"{split}, {condition}"] = shown(run.result(split, arm, condition=condition), 2)
        rows.append(row)
    return pd.DataFrame(rows)


def known_table(run: RunResults) -> pd.DataFrame:
    """AUROC for truth on all groups, on those the model knows in the tested form, and on those it recalls, with their Ns."""
    rows = []
    for arm in run.arms:
        row = {"arm": arm}
        for split in splits_of(run):
            for kept, title in (("all", "all"), ("known", "known"), ("recall_known", "recalled")):
                record = run.result(split, arm, filter=kept)
                row[f"{split}, {title}"] = shown(record, 2) + (f" (n = {record['n_groups']})" if record else "")
        rows.append(row)
    return pd.DataFrame(rows)


ADAPTER_SCORES = {
    "truth": "not turned, because its objective asks for the truth whatever the prompt",
    "lie": "always turned, because its objective asks for the false answer",
    "instructed": "turned like the base model's, because its objective asks for what the prompt demands",
    "detect": "turned like the base model's: only the head was trained to say anything, the adapter beneath it",
    "opposite": "turned where the base model's is not, because its objective asks for the opposite",
}


def adapter_score(run: RunResults) -> str:
    """How an adapter's own answer becomes a score of truth."""
    return ADAPTER_SCORES[run.config.adapter.objective]


def adapter_sentence(run: RunResults) -> str:
    """What was trained, on what, and how far it was met."""
    adapter, trained = run.config.adapter, run.about["adapters"]
    accuracy = sum(a["met"]["accuracy"] for a in trained) / len(trained)
    kept = [
        f"{name} {weight:g}"
        for name, weight in (
            ("the rest of the vocabulary", adapter.kl_vocab_weight),
            ("neutral text", adapter.kl_text_weight),
        )
        if weight
    ]
    return (
        f"{adapter.kind} in blocks {_blocks(run)} on the objective {adapter.objective}"
        + (f", with weights on keeping {' and '.join(kept)}" if kept else "")
        + (f", trained on what the model has {adapter.train_on}" if adapter.train_on != "all" else "")
        + (
            f". Its head tells the label of {accuracy:.0%} of the prompts of select"
            if adapter.objective == "detect"
            else f". It gives the wanted answer to {accuracy:.0%} of the prompts of select"
        )
        + (": hardly more than chance, so that little can be said of what it was to be." if accuracy < 0.6 else ".")
    )


def _blocks(run: RunResults) -> str:
    adapter = run.config.adapter
    if adapter.objective == "detect":
        return f"{adapter.layers} below its head"
    return str(adapter.layers)


def verdict_table(run: RunResults) -> pd.DataFrame:
    rows = []
    for verdict in run.verdicts:
        more = verdict["groups_to_decide"]
        rows.append(
            {
                "hypothesis": verdict["hypothesis"],
                "difference in AUROC": gap(verdict),
                "p (Holm)": f"{verdict['p_adjusted']:.3f}",
                "verdict": verdict["verdict"],
                "groups": verdict["n_groups"],
                "groups that would decide": more if more else "–",
                "seeds": verdict["seeds"],
                "over seeds": "–"
                if verdict.get("recipe_low") is None
                else f"[{verdict['recipe_low']:+.3f}, {verdict['recipe_high']:+.3f}]",
            }
        )
    return pd.DataFrame(rows)


def controls_table(run: RunResults) -> pd.DataFrame:
    rows = []
    for control in run.controls:
        value = f"{control['auroc']:.3f}"
        if control["draws"] > 1 or control["control"] == SWAPPED:
            value += f" [{control['low']:.3f}, {control['high']:.3f}]"
        pooled = control.get("pooled_auroc")
        rows.append(
            {
                "control": control["control"],
                "arm": control["arm"] or "–",
                "split": control["split"],
                "AUROC [95 %]": value,
                "pooled": f"{pooled:.3f}" if pooled is not None else "–",
                "detector": f"{control['detector']:.3f}" if "detector" in control else "–",
                "expectation": control["expectation"],
                "met": "yes" if control["met"] else "NO",
            }
        )
    return pd.DataFrame(rows)
