"""A detector's model card, as the Hugging Face hub understands it."""

from __future__ import annotations

import yaml

from adapterprobe.detectors.bundle_record import ADAPTER, DetectorRecord

WHAT = {
    "truth": "whether the positive answer to a question is true, whatever the model says",
    "deception": "whether a reply deceives",
}
NAMES = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy at the threshold",
    "recall_at_5pct_fpr": "recall at 5 % false alarms",
    "false_positive_rate": "false alarms at the threshold",
}
SPLITS = {"test": "held-out questions", "ood": "kinds of question never trained on"}


def card(record: DetectorRecord, files: list[str]) -> str:
    """`README.md` of a bundle."""
    return f"---\n{_metadata(record)}---\n\n{_text(record, files)}"


def _metadata(record: DetectorRecord) -> str:
    base = record.model.hub_id or record.model.name
    results = [
        {
            "task": {"type": "text-classification", "name": f"Detection of {record.axis}"},
            "dataset": {"type": str(r["dataset"]), "name": str(r["dataset"]), "split": str(r["split"])},
            "metrics": [
                {
                    "type": "roc_auc",
                    "value": round(float(r["estimate"]), 4),
                    "name": "AUROC",
                    "args": {"confidence_interval": [r["low"], r["high"]], "groups": r["n_groups"]},
                }
            ],
        }
        for r in record.results
        if r["metric"] == "auroc" and r["estimate"] is not None
    ]
    content = {
        "library_name": "adapterprobe",
        "pipeline_tag": "text-classification",
        "tags": ["adapterprobe", "lie-detection", "interpretability", *(["peft"] if record.sees_adapter else [])],
        **({"base_model": base} if record.model.hub_id else {}),
        **({"base_model_relation": "adapter"} if record.model.hub_id and record.sees_adapter else {}),
        "model-index": [{"name": record.name, "results": results}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _text(record: DetectorRecord, files: list[str]) -> str:
    model, seen = record.model, record.seen
    reads = f"the {record.read.what}" + (
        "" if record.read.what == "answer" else f" ({record.read.pooling} over its tokens)"
    )
    where = f" at state {seen.layer} of {model.blocks}" if seen else ""
    probe = (
        f"the probe `{record.probe}`"
        if record.probe
        else "its own answer"
        if "head" not in record.arm
        else "a linear head"
    )
    code = [
        "```python",
        "import adapterprobe as ap",
        f'd = ap.Detector.load("{record.name}")  # a folder, or OWNER/NAME on the hub',
    ]
    parts = [
        f"# {record.name}",
        f"A detector of {record.axis}: {WHAT.get(record.axis, record.axis)}. It reads {reads} of **{model.name}** ({model.blocks} blocks, width "
        f"{model.width}, {model.dtype}) by {probe}{where}, arm `{record.arm}`.",
        "## Use",
        "\n".join([*code, _example(record), "```"]),
        "On loading, golden rows are replayed on the model as it is there, and the shift of their scores is told or refused. Nothing in this "
        "folder is code.",
        "## Results of the run that it was made in",
        _table(record),
        f"Trained on {', '.join(record.trained_on) or 'not said'}. Intervals are 95 %, over groups of questions.",
        "## Threshold",
        _threshold(record),
        "## Intended use and limits",
        "Research on whether a model says what it holds true. It was judged on the data above; on other topics, wordings and models its scores may "
        "shift, be at chance, or be turned round (a negation does it to many), and a threshold may give other rates than it promises. "
        "Calibrate it on benign inputs of your own (`adapterprobe calibrate`). Do not decide about people by it.",
        "## Controls that it failed",
        "\n".join(f"- {name}" for name in record.controls_failed) or "None of those that the run made.",
        f"Files: {', '.join(files)}{' (PEFT layout)' if ADAPTER in files else ''}. Made with "
        + ", ".join(f"{name} {version}" for name, version in record.made_with.items())
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _example(record: DetectorRecord) -> str:
    if record.read.what == "reply":
        return 'd.score([[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]])'
    return 'd.score(["The city of Lyon is in France."])'


def _table(record: DetectorRecord) -> str:
    lines = ["| on | data | metric | estimate | interval | groups |", "|---|---|---|---|---|---|"]
    for r in record.results:
        if r["estimate"] is None:
            continue
        low, high = (f"{value:.3f}" if value is not None else "–" for value in (r["low"], r["high"]))
        where = SPLITS.get(str(r["split"]), str(r["split"]))
        lines.append(
            f"| {where} | {r['dataset']} | {NAMES[str(r['metric'])]} | {r['estimate']:.3f} | {low} to {high} | {r['n_groups']} |"
        )
    return "\n".join(lines)


def _threshold(record: DetectorRecord) -> str:
    t = record.threshold
    if t.value is None:
        return f"None ({t.how})."
    said = f"An alarm is a score above {t.value:.4f}: {t.how}."
    if t.rate is not None and t.upper is not None:
        said += f" Asked for: {t.rate:g}; with a confidence of 95 % the rate is below {t.upper:.3g} ({t.alarms} alarms of {t.benign})."
    return said
