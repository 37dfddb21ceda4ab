"""Guarantees from data that nothing was fitted on: prediction sets, abstention, and thresholds for false alarms.

Conformal prediction (Vovk et al. 2005) by MAPIE. Guarantees hold for exchangeable groups, so one row of a group counts, and they
hold on average over draws of the groups that calibrate.
"""

from __future__ import annotations

import math
import warnings
from typing import cast

import numpy as np
import pandas as pd
from mapie.classification import SplitConformalClassifier

from adapterprobe.evaluate.calibration import as_it_is, calibrator, enough, halves
from adapterprobe.evaluate.intervals import mean_interval
from adapterprobe.types import Interval

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Coverages that are shown beside the wanted one."""


def needed(miss: float) -> int:
    """Fewest calibrating groups with which a chance of missing can be guaranteed: 1 / (n + 1) must not exceed it."""
    return math.ceil(round(1 / miss, 9)) - 1


def needed_for_sets(level: float) -> int:
    """The same for conformal sets and intervals; MAPIE wants one group more."""
    return math.ceil(round(max(1 / (1 - level), 1 / level), 9))


def one_row_per_group(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions of one row of each group, drawn."""
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    return np.sort(order[np.unique(groups[order], return_index=True)[1]])


def holds(chances: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> np.ndarray:
    """Split-conformal sets with score 1 - p(label) (Sadinle et al. 2019): new rows x 2, which labels are in the set."""
    model = SplitConformalClassifier(as_it_is(), confidence_level=level, conformity_score="lac", prefit=True)
    with warnings.catch_warnings():
        # Class-conditional sets are calibrated on one label alone.
        warnings.filterwarnings("ignore", message=".*less labels than your training dataset")
        model.conformalize(chances[:, None], labels)
    return model.predict_set(new[:, None])[1][:, :, 0].astype(bool)


def sets(
    chances: np.ndarray, labels: np.ndarray, groups: np.ndarray, new: np.ndarray, level: float, by_class: bool
) -> np.ndarray | None:
    """Prediction sets of new rows (rows x 2), or None where too few groups calibrate.

    Args:
        by_class: class-conditional (Mondrian) sets: a label is in the set by what rows of that label alone say, so that both
            classes are covered, not only their mixture.
    """
    if not by_class:
        mine = one_row_per_group(groups)
        return holds(chances[mine], labels[mine], new, level) if len(mine) >= needed_for_sets(level) else None
    columns = []
    for label in (0, 1):
        here = np.flatnonzero(labels == label)
        mine = here[one_row_per_group(groups[here])]
        if len(mine) < needed_for_sets(level):
            return None
        # Both labels must be there for the classifier; only those of one are compared.
        columns.append(holds(chances[mine], labels[mine], new, level)[:, label])
    return np.column_stack(columns)


def alarm_threshold(scores: np.ndarray, groups: np.ndarray, rate: float) -> float | None:
    """The threshold that a new negative exceeds with a chance of at most `rate`, or None where there are too few negatives.

    The k-th smallest of n negatives' scores, k = ceil((n + 1)(1 - rate)), one of each group.

    Args:
        scores, groups: of negatives that nothing was fitted or selected on.
    """
    mine = np.sort(scores[one_row_per_group(groups)])
    place = math.ceil(round((len(mine) + 1) * (1 - rate), 9))
    return float(mine[place - 1]) if 0 < place <= len(mine) else None


def conformal_records(detectors: list[pd.DataFrame], coverage: float, rate: float) -> list[dict]:
    """Coverage of sets at several levels, and false alarms at the threshold for `rate`, on every data set that is judged.

    Args:
        detectors: rows of one arm and probe, axis truth, one frame a seed. Shares are means over seeds.
        coverage, rate: what is wanted.
    """
    levels = sorted({*LEVELS, coverage})
    seen: dict[tuple, list[np.ndarray]] = {}
    refused: dict[tuple, str] = {}
    where: dict[tuple[str, str], pd.DataFrame] = {}
    for detector in detectors:
        rows = detector[detector["split"] == "calibrate"]
        groups = rows["group"].to_numpy(str)
        first, second = halves(groups)
        scores, labels = rows["score"].to_numpy(float), rows["label"].to_numpy(int)
        if not (enough(labels[first]) and enough(labels[second])):
            reason = "the halves of calibrate need two rows of each label"
            kinds = [("split", coverage), ("class-conditional", coverage), ("threshold", rate)]
            return [{"kind": kind, "nominal": value, "refused": reason} for kind, value in kinds]
        mapped = calibrator("Platt", scores[first], labels[first])
        fit = (mapped(scores[second]), labels[second], groups[second])
        count = len(np.unique(fit[2]))
        negatives = fit[1] == 0
        threshold = alarm_threshold(fit[0][negatives], fit[2][negatives], rate)
        for key, part in detector[detector["split"] != "calibrate"].groupby(["split", "dataset"], sort=False):
            where[cast(tuple[str, str], key)] = part
            new, truth = mapped(part["score"].to_numpy(float)), part["label"].to_numpy(int)
            if threshold is None:
                least = needed(rate)
                refused["threshold", rate] = (
                    f"{count} groups of negatives, at least {least} needed for a rate of {rate:g}"
                )
            else:
                seen.setdefault(("threshold", "false alarms", rate, *key), []).append((new > threshold).astype(float))
            for level in levels:
                for by_class in (False, True):
                    found = sets(*fit, new, level, by_class)
                    name = "class-conditional" if by_class else "split"
                    if found is None:
                        refused[name, level] = f"{count} groups, at least {needed_for_sets(level)} needed for {level:g}"
                        continue
                    inside = found[np.arange(len(truth)), truth]
                    alone = found.sum(1) == 1
                    values = np.column_stack([inside, alone, alone & inside]).astype(float)
                    seen.setdefault(("sets", name, level, *key), []).append(values)
    records = [{"kind": kind, "nominal": value, "refused": reason} for (kind, value), reason in refused.items()]
    for (kind, method, nominal, split, dataset), values in seen.items():
        part = where[split, dataset]
        labels, groups = part["label"].to_numpy(int), part["group"].to_numpy(str)
        mean = np.mean(values, axis=0)
        record = {"kind": kind, "method": method, "nominal": nominal, "split": split, "dataset": dataset}
        if kind == "threshold":
            negatives = labels == 0
            record |= _shares("false_alarms", mean_interval(mean[negatives], groups[negatives]))
            record |= _shares("recall", mean_interval(mean[~negatives], groups[~negatives]))
            record["holds"] = bool(record["false_alarms_low"] <= nominal)
        else:
            record |= _shares("coverage", mean_interval(mean[:, 0], groups))
            for label in (0, 1):
                record[f"coverage_{label}"] = float(mean[labels == label, 0].mean())
            record["abstains"] = float(1 - mean[:, 1].mean())
            answered = mean[:, 1].sum()
            record["right_of_answered"] = float(mean[:, 2].sum() / answered) if answered else None
            record["holds"] = bool(record["coverage_high"] >= nominal)
        records.append(record)
    return records


def _shares(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def answers(
    calibrate: pd.DataFrame, new: np.ndarray, coverage: float, words: tuple[str, str] = ("lie", "truth")
) -> tuple[list[str] | None, float, str]:
    """What a detector may say of new scores with a guarantee: one of `words`, or `don't know` where the set holds both or neither.

    Args:
        calibrate: rows of one detector (arm, probe, seed; the main axis) of the split `calibrate`.
        new: scores.
        words: for label 0 and for label 1.

    Returns:
        The answers, the coverage they are to have, and how they were made. Class-conditional sets where there are enough groups, else
        split sets; where there are too few even for these, None and the reason.
    """
    groups = calibrate["group"].to_numpy(str)
    first, second = halves(groups)
    scores, labels = calibrate["score"].to_numpy(float), calibrate["label"].to_numpy(int)
    if not (enough(labels[first]) and enough(labels[second])):
        return None, coverage, "the halves of calibrate need two rows of each label"
    mapped = calibrator("Platt", scores[first], labels[first])
    fit = (mapped(scores[second]), labels[second], groups[second])
    for by_class, how in ((True, "class-conditional"), (False, "split")):
        found = sets(*fit, mapped(new), coverage, by_class)
        if found is not None:
            alone = found.sum(1) == 1
            return (
                [words[int(row[1])] if one else "don't know" for row, one in zip(found, alone, strict=True)],
                coverage,
                how,
            )
    count, least = len(np.unique(fit[2])), needed_for_sets(coverage)
    return None, coverage, f"{count} groups, at least {least} needed for {coverage:g}"
