"""Confidence intervals by resampling groups.

Groups, not rows, are the independent units: both polarities and all prompts of an entity rise and fall
together. Intervals of metrics that live in [0, 1] are made on the logit scale with Student's t for the number
of groups, so that they stay inside and keep their coverage near 1; differences are made on their own scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from adapterprobe.evaluate.statistics import Statistic, auroc
from adapterprobe.types import Interval


def resample(n_groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each group is drawn in each resample: resamples x groups."""
    rng = np.random.default_rng([seed, n_groups, resamples])
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(np.float64)


def estimate(statistic: Statistic, n_groups: int) -> float:
    """The statistic with every group counted once."""
    return float(statistic(np.ones((1, n_groups)))[0])


def auroc_interval(
    labels: np.ndarray, scores: np.ndarray, groups: Sequence[str] | np.ndarray, resamples: int
) -> tuple[Interval, int]:
    """AUROC of some rows with its interval over groups, and how many groups there are."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    statistic = auroc(labels, scores, codes, len(names))
    return share_interval(statistic, resample(len(names), resamples, 0)), len(names)


def share_interval(
    statistic: Statistic, weights: np.ndarray, groups: int | None = None, level: float = 0.95
) -> Interval:
    """Interval of a metric in [0, 1].

    Args:
        weights: resamples x groups, see `resample`.
        groups: how many groups the metric really rests on, where it is fewer than there are weights for.
    """
    n_groups = weights.shape[1]
    effective = groups or n_groups
    value = estimate(statistic, n_groups)
    if not np.isfinite(value):
        return Interval(value, np.nan, np.nan)
    draws = statistic(weights)
    draws = draws[np.isfinite(draws)]
    # A metric of exactly 0 or 1 has no logit, and a few groups cannot vouch for more than this.
    edge = 0.5 / (effective + 1) ** 2
    spread = float(np.std(logit(np.clip(draws, edge, 1 - edge)))) if len(draws) > 1 else np.inf
    tail = (1 - level) / 2
    if spread == 0 or value in (0.0, 1.0):
        # All groups agree. As few as `limit` of all there are could do so by luck (exact binomial, one group one
        # trial); the others may have any value from 0 to 1.
        limit = tail ** (1 / effective)
        return Interval(value, value * limit, value * limit + 1 - limit)
    reach = stats.t.ppf(1 - tail, max(1, effective - 1)) * spread
    centre = logit(np.clip(value, edge, 1 - edge))
    return Interval(value, min(float(expit(centre - reach)), value), max(float(expit(centre + reach)), value))


def mean_interval(values: np.ndarray, groups: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the mean of values in [0, 1], rows of a group belonging together.

    Wilson's interval with the number of independent rows that would give the standard error over groups (Korn &
    Graubard 1998), so that it stays inside [0, 1] and holds near its ends. Where all rows agree, a group counts once.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    mean = float(np.mean(values))
    count = len(sizes)
    if count < 2:
        return Interval(mean, 0.0, 1.0)
    residuals = np.bincount(codes, weights=values - mean)
    variance = count / (count - 1) * float((residuals**2).sum()) / len(values) ** 2
    spread = mean * (1 - mean)
    effective = spread / variance if variance > 0 and spread > 0 else float(count)
    reach = stats.t.ppf((1 + level) / 2, count - 1) ** 2
    centre = (mean + reach / (2 * effective)) / (1 + reach / effective)
    half = np.sqrt(reach * (spread / effective + reach / (4 * effective**2))) / (1 + reach / effective)
    return Interval(mean, float(min(mean, max(0.0, centre - half))), float(max(mean, min(1.0, centre + half))))


IDENTICAL = -1.0
"""The standard error of the difference between two statistics that vary and are equal in every resample: they are one and the same
(the chosen layer lies below the adapter), which is known and not estimated."""
FEWEST_GROUPS = 8
"""Fewer groups than this that all agree say nothing of how far the next ones will be from them."""


def standard_error(draws: np.ndarray, n_groups: int, fewest: int = FEWEST_GROUPS) -> float:
    """Standard deviation of a difference's bootstrap values; NaN where they can say nothing: hardly any is finite, or all are
    alike and rest on fewer than `fewest` groups."""
    draws = draws[np.isfinite(draws)]
    if len(draws) < 2 or n_groups < 2:
        return float("nan")
    spread = float(np.std(draws, ddof=1))
    if spread < 1e-12:
        return 0.0 if n_groups >= fewest else float("nan")
    return spread


def paired_error(first: np.ndarray, second: np.ndarray, n_groups: int, fewest: int = FEWEST_GROUPS) -> float:
    """Standard error of the difference of two statistics from their values in the same resamples (see `standard_error`);
    `IDENTICAL` where both vary and never differ."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.any() and np.array_equal(first[both], second[both]) and np.std(first[both]) > 1e-12:
        return IDENTICAL
    return standard_error(first - second, n_groups, fewest)


def difference(
    first: Statistic,
    second: Statistic,
    weights: np.ndarray,
    fewest: int = FEWEST_GROUPS,
    groups: int | None = None,
) -> tuple[float, float]:
    """Estimate and standard error (see `paired_error`) of first - second over the same resamples (paired).

    Args:
        groups: how many groups the difference really rests on, where it is fewer than there are weights for.
    """
    n_groups = weights.shape[1]
    value = estimate(first, n_groups) - estimate(second, n_groups)
    return value, paired_error(first(weights), second(weights), n_groups if groups is None else groups, fewest)
