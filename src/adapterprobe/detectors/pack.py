"""A detector of a finished run as a folder that needs neither the run nor its data: `adapterprobe pack`."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adapterprobe.cache import write_atomic
from adapterprobe.detectors.bundle_folder import free_folder, made_with, model_record, whole_folder, write_card
from adapterprobe.detectors.bundle_record import (
    ADAPTER,
    FORMAT_FILE,
    GOLDEN,
    NOVELTY,
    PROBE,
    Calibration,
    DetectorRecord,
    Prompting,
    Seen,
    Threshold,
    write_record,
)
from adapterprobe.detectors.golden import ROWS, make_golden
from adapterprobe.detectors.passes import Needs, OwnEngine
from adapterprobe.detectors.row_prompts import RowPrompter
from adapterprobe.detectors.scorer import SavedDetector, Scorer
from adapterprobe.detectors.sketches import REFERENCE, projected
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.schema import BASELINES, WITHHELD, WITHHELD_ON
from adapterprobe.hints import nearest
from adapterprobe.models import LanguageModel, wrap_model
from adapterprobe.prompts.conversations import conversation_format
from adapterprobe.prompts.followups import follow_ups
from adapterprobe.small_files import read_records

NOT_PACKED = (*BASELINES, WITHHELD, WITHHELD_ON)
"""Arms that are there to be beaten."""
KEPT_RESULTS = ("auroc", "balanced_accuracy", "recall_at_5pct_fpr", "false_positive_rate")
REFERENCE_ROWS = 512


def pack(
    run: str | Path,
    arm: str,
    out: str | Path,
    probe: str | None = None,
    condition: str | None = None,
    name: str | None = None,
    trust_remote_code: bool = False,
    model: Any = None,
    tokenizer: Any = None,
) -> Path:
    """Write one detector of a run, of its lowest seed.

    Args:
        arm: such as `adapter+probe`. probe: one of the run's; None: its main one.
        condition: what prompts push to; None: the run's first.
        name: what the detector is called; None: the folder's name.
        model, tokenizer: the run's model, where it is loaded already (what `load_model` gave, or a transformers model).

    Returns:
        The folder.

    Raises:
        ConfigError: the run has no such arm or probe, or it is a control.
        OutputError: the run is not finished or has changed, or `out` holds something.
    """
    out = free_folder(out)
    loaded = model if model is None or isinstance(model, LanguageModel) else wrap_model(model, tokenizer)
    scorer = Scorer(run, trust_remote_code, loaded)
    saved = _chosen(scorer, arm, probe)
    condition = condition or scorer.config.elicit.conditions[0]
    with whole_folder(out) as folder:
        _write(scorer, saved, condition, name or out.name, folder)
    return out


def _chosen(scorer: Scorer, arm: str, probe: str | None) -> SavedDetector:
    if arm in NOT_PACKED:
        raise ConfigError(
            f"the arm {arm} is a control or a baseline, and no detector to take away; pack base+probe, adapter+probe, ..."
        )
    arms = list(dict.fromkeys(d.arm for d in scorer.detectors if d.arm not in NOT_PACKED))
    mine = [d for d in scorer.detectors if d.arm == arm]
    if not mine:
        raise ConfigError(f"the run has no arm '{arm}'{nearest(arm, arms)}; it has {', '.join(arms)}")
    labels = [d.label for d in mine if d.label is not None]
    if not labels:
        if probe is not None:
            raise ConfigError(f"the arm {arm} has no probes; leave --probe out")
        return mine[0]
    ways = {name: spec.centre for name, spec in scorer.config.probe_by_label.items()}
    wanted = probe or (scorer.config.evaluate.probe if scorer.config.evaluate.probe in labels else labels[0])
    if wanted not in labels:
        raise ConfigError(
            f"the arm {arm} of the run has no probe '{wanted}'{nearest(wanted, labels)}; it has {', '.join(labels)}"
        )
    if ways[wanted] in ("few", "own"):
        raise ConfigError(
            f"the probe '{wanted}' centres rows by other rows of their set, and a detector scores each text by itself; pack one with "
            f"centre=training or without centre ({', '.join(n for n in labels if ways[n] not in ('few', 'own')) or 'the run has none'})"
        )
    found = next(d for d in mine if d.label == wanted)
    if found.probe is not None and found.probe.needs_polarity:
        raise ConfigError(
            f"the probe '{wanted}' is told which way each question is asked (polarity: told), and a detector scores any text; pack another"
        )
    return found


def _write(scorer: Scorer, saved: SavedDetector, condition: str, name: str, folder: Path) -> None:
    record = _record(scorer, saved, condition, name, folder)
    source = scorer.folder
    adapter = None
    if record.sees_adapter:
        adapter = folder / ADAPTER
        shutil.copytree(source / "adapter", adapter)
    if saved.label is not None:
        kept = source / "probes" / f"{saved.arm}-{saved.label}-seed-{scorer.seed}"
        for ending in (".json", ".safetensors"):
            shutil.copyfile(kept.with_name(kept.name + ending), folder / f"{PROBE}{ending}")
    states, groups = scorer.reference(REFERENCE_ROWS)
    _, numbers = np.unique(groups, return_inverse=True)
    save_file(
        {"states": projected(states, REFERENCE).astype(np.float16), "groups": numbers.astype(np.int32)},
        folder / NOVELTY,
    )
    write_record(folder, record)
    needs = Needs(record, saved.probe, saved.head, adapter)
    golden = make_golden(record, OwnEngine(scorer.lm, scorer.engine), needs, _golden_prompts(scorer))
    write_atomic(folder / GOLDEN, json.dumps(golden))
    write_card(folder, record)


def _golden_prompts(scorer: Scorer) -> list:
    """Some judged prompts, evenly over the run's own order."""
    prompts, _ = scorer.stored(["test"])
    places = np.unique(np.linspace(0, len(prompts) - 1, min(ROWS, len(prompts))).round().astype(int))
    return [prompts[place] for place in places]


def _record(scorer: Scorer, saved: SavedDetector, condition: str, name: str, folder: Path) -> DetectorRecord:
    config, lm = scorer.config, scorer.lm
    rows = saved.calibrate
    seen = None
    if saved.probe_input is not None and saved.layer is not None:
        spec = saved.probe_input.at(saved.layer)
        seen = Seen(
            layer=saved.layer, several=spec.several, kind=spec.kind, deep=spec.deep, tokens=config.select.tokens
        )
    known = np.isfinite(saved.threshold)
    return DetectorRecord(
        name=name,
        made_with=made_with(),
        axis=config.axes[0],
        arm=saved.arm,
        probe=saved.label,
        objective=config.adapter.objective,
        model=model_record(lm, config.model.name, config.model.revision),
        read=config.read,
        prompting=_prompting(scorer, condition, folder),
        seen=seen,
        calibration=Calibration(
            scores=tuple(float(score) for score in rows["score"]),
            labels=tuple(int(label) for label in rows["label"]),
            groups=tuple(hashlib.sha256(str(group).encode()).hexdigest()[:12] for group in rows["group"]),
        ),
        threshold=Threshold(
            value=float(saved.threshold) if known else None,
            how="the best balanced accuracy on the run's calibrate split" if known else "not fixed: one class alone calibrates",
        ),
        coverage=config.evaluate.coverage,
        novelty_layer=scorer.home,
        results=_results(scorer, saved),
        controls_failed=_failed(scorer, saved),
        trained_on=[Path(ref).name for ref in config.data.train],
    )  # fmt: skip


def _prompting(scorer: Scorer, condition: str, folder: Path) -> Prompting:
    config, tokenizer = scorer.config, scorer.lm.tokenizer
    form = config.elicit.format
    if config.read.what == "reply":
        form = conversation_format(form, tokenizer)
    if form.endswith(".jinja"):
        shutil.copyfile(form, folder / FORMAT_FILE)
        form = FORMAT_FILE
    positive, negative = scorer.choices
    common: dict[str, Any] = {"format": form, "condition": condition, "form": config.form}
    if config.read.what != "answer":
        asked = follow_ups(config.read.what, config.elicit.templates, "judge")[0]
        yes, no = asked.choices
        return Prompting(**common, ask=asked.ask, yes=asked.yes, positive=yes, negative=no)
    common |= {"positive": positive, "negative": negative}
    for columns in (["statement"], ["question", "answer"]):
        try:
            prompter = RowPrompter(config, scorer.choices, columns, condition, tokenizer)
        except DataError:
            continue
        shown = prompter.demos[0].turns(condition, prompter.template) if prompter.demos else []
        systems = prompter.systems.get(condition) or []
        return Prompting(
            **common,
            pattern=prompter.template.pattern,
            exact=prompter.exact,
            system=systems[0].text if systems else None,
            demonstrations=tuple((turn, answer) for turn, answer in shown),
        )
    # Which of two shown answers is right: only prompts as they are to be sent.
    return Prompting(**common)


def _results(scorer: Scorer, saved: SavedDetector) -> list[dict[str, Any]]:
    records = read_records(scorer.folder / "results.json", "the results")
    kept = ("metric", "split", "dataset", "condition", "estimate", "low", "high", "n_groups")
    found = [
        {key: r.get(key) for key in kept}
        for r in records
        if r.get("arm") == saved.arm
        and r.get("probe") == saved.label
        and r.get("metric") in KEPT_RESULTS
        and r.get("axis") == scorer.config.axes[0]
        and r.get("filter") == "all"
        and r.get("condition") == "mean"
    ]
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()} for r in found]


def _failed(scorer: Scorer, saved: SavedDetector) -> list[str]:
    records = read_records(scorer.folder / "controls.json", "the controls")
    return [
        f"{r.get('control')} ({r.get('split')})"
        for r in records
        if r.get("met") is False
        and r.get("arm") in (None, saved.arm)
        and r.get("probe") in (None, saved.label, "logistic")
    ]
