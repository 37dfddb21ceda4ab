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
    """Largest share of label-1 rows above a threshold that at most `rate` of the label-0 rows are above."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive, group = scores[order], labels[order] == 1, groups[order]
    block_end = np.append(ranked[1:] != ranked[:-1], True)

    def value(w: np.ndarray) -> np.ndarray:
        out = np.empty(len(w))
        for start in range(0, len(w), 2000):
            weights = w[start : start + 2000].astype(np.float32)[:, group]
            hits = np.cumsum(weights * positive, axis=1)
            alarms = np.cumsum(weights * ~positive, axis=1)
            allowed = block_end & (alarms <= rate * alarms[:, -1:] + 1e-4)
            best = np.where(allowed, hits, 0.0).max(1)
            out[start : start + 2000] = np.where(alarms[:, -1] > 0, _ratio(best, hits[:, -1]), np.nan)
        return out

    return value


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
