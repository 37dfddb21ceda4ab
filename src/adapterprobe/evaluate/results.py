"""From `predictions.parquet` to `results.json` and `verdicts.json`."""

from __future__ import annotations

import pandas as pd

from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.gaps import gap_records
from adapterprobe.evaluate.intervals import FEWEST_GROUPS, difference, estimate
from adapterprobe.evaluate.schema import has_probe
from adapterprobe.evaluate.scores import refuse_non_finite_scores
from adapterprobe.evaluate.statistics import Statistic
from adapterprobe.evaluate.verdict import Hypothesis, across_seed_interval, judge


def evaluate(
    frame: pd.DataFrame,
    hypotheses: list[Hypothesis],
    probe: str,
    resamples: int,
    margin: float,
    min_groups: int = FEWEST_GROUPS,
) -> tuple[list[dict], list[dict]]:
    """Result and verdict records of a run's predictions.

    Args:
        frame: `predictions.parquet`.
        probe: the probe that hypotheses about probe arms speak of.
        min_groups: fewer groups than this that all agree give no verdict.

    Raises:
        OutputError: a score is not finite.
    """
    refuse_non_finite_scores(frame)
    splits = {name: Evaluation(frame, name, resamples) for name in ("test", "ood") if (frame["split"] == name).any()}
    results = [record for evaluation in splits.values() for record in evaluation.records()]
    results += [record for evaluation in splits.values() for record in evaluation.pooled_records()]
    results += gap_records(frame, probe, resamples)
    measured, stated, by_seed = [], [], []
    for hypothesis in hypotheses:
        evaluation = splits.get(hypothesis.split)
        if evaluation is None:
            continue
        sides = [
            evaluation.arm_auroc(arm, probe if has_probe(arm) else None, hypothesis.axis)
            for arm in (hypothesis.better, hypothesis.worse)
        ]
        first, second = sides
        if first is None or second is None:
            measured.append(None)
        else:
            measured.append(_measured(evaluation, hypothesis, probe, first, second, min_groups))
        stated.append(hypothesis)
        by_seed.append(_seed_differences(evaluation, hypothesis, probe))
    seeds = int(frame["seed"].nunique())
    return results, [
        v | across_seed_interval(d) for v, d in zip(judge(stated, measured, margin, seeds), by_seed, strict=True)
    ]


def _measured(
    evaluation: Evaluation, hypothesis: Hypothesis, probe: str, first: Statistic, second: Statistic, min_groups: int
) -> tuple[float, float, int]:
    """Difference, its standard error, and the groups that it really rests on: those with a labelled row in cells of both arms."""
    names = [(arm, probe if has_probe(arm) else None) for arm in (hypothesis.better, hypothesis.worse)]
    rows = [evaluation.compared_rows(arm, own, hypothesis.axis) for arm, own in names]
    groups = set.intersection(*(set(part["group_code"]) for part in rows))
    value, error = difference(first, second, evaluation.weights, min_groups, len(groups))
    return value, error, len(groups)


def _seed_differences(evaluation: Evaluation, hypothesis: Hypothesis, probe: str) -> list[float]:
    """The difference that a hypothesis is about, for each training seed by itself; empty where one has nothing to measure."""
    found = []
    for seed in evaluation.seeds:
        sides = [
            evaluation.arm_auroc(arm, probe if has_probe(arm) else None, hypothesis.axis, [seed])
            for arm in (hypothesis.better, hypothesis.worse)
        ]
        known = [estimate(side, len(evaluation.group_names)) for side in sides if side is not None]
        if len(known) < 2:
            return []
        found.append(known[0] - known[1])
    return found
