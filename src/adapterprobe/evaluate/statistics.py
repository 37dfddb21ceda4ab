"""Metrics as functions of group weights: the estimate has all weights 1, a bootstrap resample has counts.

Each builder takes labels (0 or 1), scores and the group index of every row, and gives a function from weights
(resamples x groups) to values (resamples,). So every metric, and any average or difference of metrics, is
resampled with the same draws, paired between arms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.stats import rankdata

Statistic = Callable[[np.ndarray], np.ndarray]


def _per_group(values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    return np.bincount(groups, weights=values, minlength=n_groups)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def auroc(
    labels: Num[np.ndarray, " rows"], scores: Num[np.ndarray, " rows"], groups: Int[np.ndarray, " rows"], n_groups: int
) -> Statistic:
    """Area under the ROC curve: the chance that a row of label 1 outscores one of label 0, ties half.

    Equal to scikit-learn's for weights of 1. Wins are counted once per pair of groups, from the ranks of one group's rows of
    label 1 among another's of label 0 (Mann & Whitney 1947): memory grows with groups x groups, not with rows x rows.
    """
    positive, negative = labels == 1, labels == 0
    present, codes = np.unique(groups, return_inverse=True)
    matrix = group_wins(scores[positive], codes[positive], scores[negative], codes[negative], len(present))
    n_pos = np.bincount(codes[positive], minlength=len(present)).astype(float)
    n_neg = np.bincount(codes[negative], minlength=len(present)).astype(float)

    def value(w: np.ndarray) -> np.ndarray:
        mine = w[:, present]
        return _ratio(((mine @ matrix) * mine).sum(1), (mine @ n_pos) * (mine @ n_neg))

    return value


def group_wins(
    above: np.ndarray, above_groups: np.ndarray, below: np.ndarray, below_groups: np.ndarray, n_groups: int
) -> np.ndarray:
    """How often a score of `above` beats one of `below`, ties half, by the groups of both: groups x groups.

    Whole and half numbers below 2**52: exact.
    """
    # Neighbours are looked up at neighbouring places: four times as fast as in any order.
    ascending = np.argsort(above, kind="stable")
    above, above_groups = above[ascending], above_groups[ascending]
    order = np.lexsort((below, below_groups))
    ranked, edges = below[order], np.searchsorted(below_groups[order], np.arange(n_groups + 1))
    wins = np.zeros((n_groups, n_groups))
    for group in range(n_groups):
        mine = ranked[edges[group] : edges[group + 1]]
        if len(mine):
            beaten = np.searchsorted(mine, above, "left") + np.searchsorted(mine, above, "right")
            wins[:, group] = np.bincount(above_groups, weights=beaten / 2, minlength=n_groups)
    return wins


def _accuracy_of(mask: np.ndarray, right: np.ndarray, groups: np.ndarray, n_groups: int) -> Statistic:
    top = _per_group((right & mask).astype(float), groups, n_groups)
    bottom = _per_group(mask.astype(float), groups, n_groups)
    return lambda w: _ratio(w @ top, w @ bottom)


def accuracy(labels, scores, groups, n_groups, threshold: float) -> Statistic:
    """Share of rows on the right side of the threshold (score > threshold means label 1)."""
    return _accuracy_of(np.ones(len(labels), bool), (scores > threshold) == (labels == 1), groups, n_groups)


def balanced_accuracy(labels, scores, groups, n_groups, threshold: float) -> Statistic:
    """Mean of the two classes' accuracies at the threshold."""
    right = (scores > threshold) == (labels == 1)
    parts = [_accuracy_of(labels == side, right, groups, n_groups) for side in (0, 1)]
    return lambda w: (parts[0](w) + parts[1](w)) / 2


def false_positive_rate(labels, scores, groups, n_groups, threshold: float) -> Statistic:
    """Share of label-0 rows above the threshold."""
    return _accuracy_of(labels == 0, scores > threshold, groups, n_groups)


def majority(labels, scores, groups, n_groups) -> Statistic:
    """Accuracy of always giving the more frequent label: what accuracy is to be held against."""
    ones = _per_group((labels == 1).astype(float), groups, n_groups)
    rows = _per_group(np.ones(len(labels)), groups, n_groups)

    def value(w):
        share = _ratio(w @ ones, w @ rows)
        return np.maximum(share, 1 - share)

    return value


def brier(labels, scores, groups, n_groups) -> Statistic:
    """Mean squared distance of score and label (Brier 1950)."""
    top = _per_group((scores - labels) ** 2, groups, n_groups)
    rows = _per_group(np.ones(len(labels)), groups, n_groups)
    return lambda w: _ratio(w @ top, w @ rows)


def ece(labels, scores, groups, n_groups, bins: int = 10) -> Statistic:
    """Expected calibration error over equal-width bins of the score (Naeini et al. 2015, binary form)."""
    where = np.clip((scores * bins).astype(int), 0, bins - 1)
    gaps, rows = np.zeros((n_groups, bins)), np.zeros(n_groups)
    np.add.at(gaps, (groups, where), scores - labels)
    np.add.at(rows, groups, 1.0)
    return lambda w: _ratio(np.abs(w @ gaps).sum(1), w @ rows)


def recall_at_fpr(labels, scores, groups, n_groups, rate: float) -> Statistic:
    """Largest share of label-1 rows above a threshold that at most `rate` of the label-0 rows are above.

    The threshold of a resample is the highest score of label 0 at which its alarms exceed the rate: only the top of those rows is looked at,
    and rows of label 1 are counted by group above the thresholds that occur. Memory grows with rows, not with resamples x rows.
    """
    positive, negative = labels == 1, labels == 0
    levels, level = np.unique(-scores[negative], return_inverse=True)
    order = np.argsort(level, kind="stable")
    owners, level = groups[negative][order], level[order]
    levels = np.append(levels, np.inf)
    n_pos = np.bincount(groups[positive], minlength=n_groups).astype(float)
    n_neg = np.bincount(groups[negative], minlength=n_groups).astype(float)

    def value(w: np.ndarray) -> np.ndarray:
        alarms, top = w @ n_neg, np.zeros(len(w))
        crossed = np.zeros(len(w), int)
        for piece in _pieces(len(w)):
            crossed[piece] = _crossed(w[piece], alarms[piece] * rate + 1e-4, owners, level)
        thresholds, which = np.unique(crossed, return_inverse=True)
        for piece in _pieces(len(thresholds)):
            above = _above(-scores[positive], groups[positive], levels[thresholds[piece]], n_groups)
            for resample in np.flatnonzero(which // PIECE == piece.start // PIECE):
                top[resample] = w[resample] @ above[:, which[resample] - piece.start]
        return np.where(alarms > 0, _ratio(top, w @ n_pos), np.nan)

    return value


PIECE = 500
"""Resamples, and thresholds, that are looked at together."""


def _pieces(count: int) -> list[slice]:
    return [slice(start, start + PIECE) for start in range(0, count, PIECE)]


def _crossed(w: np.ndarray, bound: np.ndarray, owners: np.ndarray, level: np.ndarray) -> np.ndarray:
    """For each resample the first level (rows are in the order of theirs) at which the weight of the rows so far is above its bound; the last
    and one where there is none."""
    most = len(owners)
    # Rows weigh one on average, so that this is enough in nearly all cases; where it is not, more are looked at.
    count = min(most, 200 + int(1.5 * bound.max()))
    while True:
        # The last level may be cut off here: one that is above the bound with some of its rows is so with all.
        reached = np.cumsum(w[:, owners[:count]], axis=1)
        over = reached > bound[:, None]
        if count == most or over.any(1).all():
            return np.where(over.any(1), level[over.argmax(1)], level[-1] + 1) if most else np.zeros(len(w), int)
        count = min(most, 2 * count)


def _above(ranked: np.ndarray, owners: np.ndarray, levels: np.ndarray, n_groups: int) -> np.ndarray:
    """By group (first axis), how many rows have a smaller number than each of some ascending levels."""
    place = np.searchsorted(levels, ranked, "right")
    width = len(levels) + 1
    counts = np.bincount(owners * width + place, minlength=n_groups * width).reshape(n_groups, width)
    return np.asfortranarray(np.cumsum(counts, axis=1)[:, :-1])


def alarms_at_fpr(labels: np.ndarray, scores: np.ndarray, rate: float) -> int:
    """How many label-0 rows are above the threshold of `recall_at_fpr`: the highest one with the largest share of label-1 rows.

    >>> alarms_at_fpr(np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.2, 0.1]), 0.34)
    1
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order] == 1
    alarms = np.cumsum(~positive)
    allowed = np.append(ranked[1:] != ranked[:-1], True) & (alarms <= rate * alarms[-1] + 1e-4)
    hits = np.where(allowed, np.cumsum(positive), 0)
    return int(alarms[hits.argmax()]) if hits.max() else 0


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Average of statistics under the same weights."""
    return lambda w: np.mean([statistic(w) for statistic in statistics], axis=0)


def auroc_columns(
    labels: Num[np.ndarray, " rows"] | Bool[np.ndarray, " rows"], scores: Num[np.ndarray, "rows columns"]
) -> Float[np.ndarray, " columns"]:
    """AUROC of each column of `scores` (rows x columns), ties half; NaN where a class is missing.

    The Mann-Whitney form, equal to scikit-learn's `roc_auc_score` column by column.
    """
    positive = np.asarray(labels) == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if n_pos == 0 or n_neg == 0:
        return np.full(scores.shape[1], np.nan)
    ranks = rankdata(scores, axis=0)
    return (ranks[positive].sum(0) - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
