"""Thresholds for a wanted rate of false alarms on data that nothing was fitted on, and the rate that each then has.

Five ways, by what one has of the new data: nothing (`carried`, `cross-fitted`, `worst case`), unlabelled rows and how many of them are
positive (`unlabelled`), or rows of which all are negative (`benign`). No row is judged by a threshold that it, or its group, took part in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.calibration import halves
from adapterprobe.evaluate.conformal import alarm_threshold, needed, one_row_per_group

CARRIED, CROSS_FITTED, UNLABELLED, BENIGN, WORST = WAYS = (
    "carried",
    "cross-fitted",
    "unlabelled",
    "benign",
    "worst case",
)
"""By name: the threshold of the run's own negatives on `calibrate`; of all its negatives that nothing was trained on, those that probes are
fitted on scored by a fit without their group; of unlabelled new rows and their base rate; of negatives among new rows; the highest
of those that each training relation asks for when it is left out."""
FEWEST = 20
"""Unlabelled rows by which a quantile is told."""


@dataclass(frozen=True)
class Scored:
    """Rows of one detector: scores (higher: label 1), labels 0 or 1, and groups."""

    scores: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def part(self, rows: np.ndarray) -> Scored:
        """Some of them."""
        return Scored(self.scores[rows], self.labels[rows], self.groups[rows])

    def negative_threshold(self, rate: float) -> float | None:
        """See `alarm_threshold`, of its negatives."""
        negatives = self.labels == 0
        return alarm_threshold(self.scores[negatives], self.groups[negatives], rate) if negatives.any() else None

    def recall(self, threshold: float) -> float | None:
        """Share of its positives above a threshold; None where it has none."""
        positives = self.scores[self.labels == 1]
        return float((positives > threshold).mean()) if len(positives) else None


def check_base_rate(base_rate: float) -> None:
    """Raises `ConfigError` where a share of positives is impossible."""
    if not 0 < base_rate < 1:
        raise ConfigError(f"a base rate is the share of rows with label 1, above 0 and below 1, got {base_rate:g}")


def unlabelled_threshold(scores: np.ndarray, rate: float, base_rate: float, recall: float) -> float:
    """The threshold above which lie as many unlabelled rows as a detector of that recall would give at that rate.

    Of a mixture with a share `base_rate` of positives, base_rate * recall + (1 - base_rate) * rate is above it. It is assumed that the
    recall at that rate carries over; the rate does not have to. Where the recall is in truth lower, negatives fill the gap and the rate
    is higher than wanted.

    Args:
        scores: of unlabelled rows. recall: at the rate, where labels are known.

    Raises:
        ConfigError: a base rate outside (0, 1).
        DataError: fewer than 20 rows.
    """
    check_base_rate(base_rate)
    if len(scores) < FEWEST:
        raise DataError(f"{len(scores)} unlabelled rows are too few to tell a quantile, at least {FEWEST} expected")
    above = base_rate * recall + (1 - base_rate) * rate
    return float(np.quantile(scores, 1 - above, method="higher"))


def threshold_records(
    calibrate: Scored,
    judged: Scored,
    rate: float,
    base_rate: float,
    relations: Mapping[str, Scored],
    pooled: Scored | None = None,
) -> list[dict]:
    """A record for each of the five ways on one data set: the rate of false alarms asked for and got, and recall.

    Args:
        calibrate: rows that nothing was fitted on, of the data that were trained on.
        judged: rows of the new data.
        base_rate: share of label 1 that is known or assumed of the new rows.
        relations: by training relation, its rows as scored by a detector that was fitted without it (see `WORST`).
        pooled: `calibrate` and all other rows that nothing was trained on, each scored by a fit without its group; None: there are no others.

    Returns:
        `way`, and either `refused` (why) or `false_alarms`, `low`, `high` (exact, see `exact_interval`), `recall`, `n_groups`.
    """
    negatives = judged.labels == 0
    if not negatives.any():
        return [{"way": way, "nominal": rate, "refused": "there are no negatives to be judged"} for way in WAYS]
    own = calibrate.negative_threshold(rate)
    known = None if own is None else calibrate.recall(own)
    count = len(np.unique(calibrate.groups[calibrate.labels == 0]))
    few = f"{count} groups of negatives calibrate, at least {needed(rate)} needed for a rate of {rate:g}"
    records = []
    for way in WAYS:
        alarms: np.ndarray | str
        if way == CARRIED:
            alarms = few if own is None else judged.scores > own
        elif way == CROSS_FITTED:
            found = None if pooled is None else pooled.negative_threshold(rate)
            alarms = "no rows but those of calibrate" if pooled is None else f"too few negatives for a rate of {rate:g}"
            alarms = alarms if found is None else judged.scores > found
        elif way == WORST:
            alarms = _worst(judged, rate, relations)
        elif way == BENIGN:
            alarms = _halved(judged, lambda others: _benign(others, rate))
        elif known is None:
            alarms = few if own is None else "no positives calibrate, by which recall would be known"
        else:
            alarms = _halved(judged, lambda others, recall=known: _unlabelled(others, rate, base_rate, recall))
        if isinstance(alarms, str):
            records.append({"way": way, "nominal": rate, "refused": alarms})
            continue
        groups = len(np.unique(judged.groups[negatives]))
        got = float(alarms[negatives].mean())
        low, high = exact_interval(got, groups)
        recall = float(alarms[~negatives].mean()) if (~negatives).any() else None
        records.append(
            {"way": way, "nominal": rate, "false_alarms": got, "low": low, "high": high, "recall": recall, "n_groups": groups}
        )  # fmt: skip
    return records


def exact_interval(share: float, groups: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's (1934) for a share of rows, each group taken as one draw; rows of one group rise and fall together.

    >>> [round(limit, 4) for limit in exact_interval(0.0, 10)]
    [0.0, 0.3085]
    """
    tail, hits = (1 - level) / 2, share * groups
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, groups - hits + 1))
    high = 1.0 if hits >= groups else float(beta.ppf(1 - tail, hits + 1, groups - hits))
    return low, high


def _worst(judged: Scored, rate: float, relations: Mapping[str, Scored]) -> np.ndarray | str:
    """Alarms at the highest threshold that a left-out relation asks for, or why there is none."""
    asked = {name: scored.negative_threshold(rate) for name, scored in relations.items()}
    known = [value for value in asked.values() if value is not None]
    if len(known) < 2:
        return f"{len(known)} training relations have {needed(rate)} groups of negatives or more; the worst case needs at least 2"
    return judged.scores > max(known)


def _halved(judged: Scored, threshold_of: Callable[[Scored], float | str]) -> np.ndarray | str:
    """Alarms where each half of the groups is judged by a threshold that the other half fixes, or why it cannot."""
    alarms = np.zeros(len(judged.scores), bool)
    first, second = halves(judged.groups)
    for mine, others in ((first, second), (second, first)):
        threshold = threshold_of(judged.part(others))
        if isinstance(threshold, str):
            return threshold
        alarms[mine] = judged.scores[mine] > threshold
    return alarms


def _benign(fixing: Scored, rate: float) -> float | str:
    threshold = fixing.negative_threshold(rate)
    if threshold is None:
        count = len(np.unique(fixing.groups[fixing.labels == 0]))
        return f"{count} groups of negatives in half of it, at least {needed(rate)} needed for a rate of {rate:g}"
    return threshold


def _unlabelled(fixing: Scored, rate: float, base_rate: float, recall: float) -> float | str:
    # One row of a group, as it would come in; what its label is, is not looked at.
    alone = fixing.scores[one_row_per_group(fixing.groups)]
    if len(alone) < FEWEST:
        return f"{len(alone)} groups in half of it, at least {FEWEST} needed to tell a quantile"
    return unlabelled_threshold(alone, rate, base_rate, recall)


def summary(records: Sequence[dict], way: str) -> dict | None:
    """Over data sets: how many, on how many the rate got is at most the one asked for, twice it, and within half and one and a half times
    it, the highest, and the mean recall; None where the way is refused everywhere."""
    got = [r for r in records if r["way"] == way and "refused" not in r]
    if not got:
        return None
    shares = np.array([r["false_alarms"] for r in got])
    asked = np.array([r["nominal"] for r in got])
    recalls = [r["recall"] for r in got if r["recall"] is not None]
    return {
        "way": way,
        "datasets": len(got),
        "at_most_asked": int((shares <= asked).sum()),
        "at_most_twice": int((shares <= 2 * asked).sum()),
        "near": int(((shares >= asked / 2) & (shares <= 1.5 * asked)).sum()),
        "highest": float(shares.max()),
        "recall": float(np.mean(recalls)) if recalls else None,
    }
