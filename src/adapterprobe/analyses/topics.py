"""Of statements on several topics: what a probe that was fitted on all but one says of the one (Marks & Tegmark 2024, section 5; Bürger
et al. 2024, section 4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.data.items import topic_of
from adapterprobe.detectors.features import ActivationPair
from adapterprobe.detectors.fit import all_rows, rows_for
from adapterprobe.detectors.search_cache import SearchJob, fitted
from adapterprobe.errors import DataError
from adapterprobe.evaluate import statistics
from adapterprobe.evaluate.intervals import resample, share_interval
from adapterprobe.progress import bar, say
from adapterprobe.types import NEGATED

FEWEST = 3
"""Topics."""
FOLDS = 3
"""Of the groups that are fitted on, by which layer and strength are chosen."""


def topics(run: FittedRun) -> Findings:
    """AUROC and accuracy of every probe, adapter off, on each topic (training data set) after a search on all others: affirmative
    statements, negated ones, and both, with 95 % intervals over groups. Nothing of the topic is looked at by the search."""
    config = run.config
    names = sorted({topic_of(p.example.dataset) for p in run.encoded.prompts if p.split != "ood"})
    if config.read.what != "statement" or len(names) < FEWEST:
        return {}
    datasets = run.column(lambda p: topic_of(p.example.dataset))
    splits = run.column(lambda p: p.split)
    negated = run.column(lambda p: p.example.form in NEGATED)
    seen = ActivationPair.of(run.base, {})
    view = seen.views()["base+probe", None]
    select = config.select.model_copy(update={"folds": FOLDS})
    everything = all_rows(config, run.encoded)
    records: list[dict] = []
    specs = [spec for spec in config.probe_specs if run.feature_specs[spec.label].kind != "tokens"]
    with bar(len(names) * len(specs), "one topic left out", unit="search") as progress:
        for topic in names:
            judged = np.flatnonzero((datasets == topic) & (splits != "ood"))
            others = np.flatnonzero(
                (datasets != topic) & (splits != "ood") & ~np.isin(everything.groups, everything.groups[judged])
            )
            for spec in specs:
                probe_input = run.feature_specs[spec.label]
                rows = rows_for(spec, replace(everything, fit=others, select=others[:0]))
                job = SearchJob(spec, probe_input, rows, select)
                progress.update()
                try:
                    selection, _ = fitted(job, probe_input.of(view), seen.key("base+probe", None), lambda: None)
                except DataError as error:
                    say(f"probe '{spec.label}' is left out without {topic}: {error}")
                    continue
                best = selection.best
                parts = {"affirmative": judged[~negated[judged]], "negated": judged[negated[judged]], "both": judged}
                for name, part in parts.items():
                    if len(set(rows.labels[part])) == 2:
                        measured = _measured(rows.labels[part], best.scores[part], rows.groups[part])
                        records.append(
                            {"topic": topic, "probe": spec.label, "polarity": name, "layer": best.layer, **measured}
                        )
    return {"challenge.json": {"topics": records}}


def _measured(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> dict:
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max()) + 1
    weights = resample(count, 1000, 0)
    common = (labels.astype(float), scores, codes, count)
    ranked = share_interval(statistics.auroc(*common), weights)
    right = share_interval(statistics.accuracy(*common, 0.5), weights)
    return {
        "auroc": ranked.estimate,
        "low": ranked.low,
        "high": ranked.high,
        "accuracy": right.estimate,
        "accuracy_low": right.low,
        "accuracy_high": right.high,
        "statements": len(labels),
        "groups": count,
    }
