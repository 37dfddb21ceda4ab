"""Thresholds from benign traffic, and a monitor over a conversation that keeps its rate of false alarms wherever one stops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import beta

from adapterprobe.errors import ConfigError, DataError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class FixedThreshold:
    """A threshold that benign scores fix.

    `upper`: what the rate of false alarms on more of the same traffic is below, with a confidence of 95 %; `alarms`: benign scores above
    it.
    """

    value: float
    upper: float
    benign: int
    alarms: int


def check_rate(rate: float) -> None:
    """Raises `ConfigError` where a rate of false alarms is impossible."""
    if not 0 < rate <= 0.5:
        raise ConfigError(f"a rate of false alarms lies above 0 and is at most 0.5, got {rate:g}")


def needed_benign(rate: float) -> int:
    """Fewest benign scores with which a rate of false alarms can be promised with a confidence of 95 %.

    >>> needed_benign(0.01), needed_benign(0.05)
    (299, 59)
    """
    return math.ceil(round(math.log(1 - CONFIDENCE) / math.log(1 - rate), 9))


def fixed_threshold(scores: np.ndarray, rate: float) -> FixedThreshold:
    """The lowest threshold whose rate of false alarms is surely below `rate`.

    The rate above the k-th smallest of n benign scores is distributed as Beta(n - k + 1, k) whatever the scores are (Wilks 1941), for
    scores that are drawn alike; with ties it is smaller. The exact binomial (Clopper-Pearson) upper limit for n - k alarms of n is the
    same number.

    Args:
        scores: of benign inputs, one for each; nothing of them was fitted on. rate: in (0, 0.5].

    Raises:
        ConfigError: an impossible rate.
        DataError: too few scores (says how many more are needed), or scores that are no numbers.
    """
    check_rate(rate)
    ranked = np.sort(np.asarray(scores, float))
    count = len(ranked)
    if not np.isfinite(ranked).all():
        raise DataError(f"{int((~np.isfinite(ranked)).sum())} of {count} benign scores are no numbers")
    places = np.arange(1, count + 1)
    upper = beta.ppf(CONFIDENCE, count - places + 1, places)
    good = np.flatnonzero(upper <= rate)
    if not len(good):
        least = needed_benign(rate)
        raise DataError(
            f"{count} benign inputs cannot promise a rate of {rate:g} with a confidence of 95 %: at least {least} are needed, {least - count} "
            f"more; with these, {float(upper[-1]) if count else 1:.2g} can be promised"
        )
    place = int(good[0])
    value = float(ranked[place])
    alarms = int((ranked > value).sum())
    # With ties fewer are above it than its rank says.
    return FixedThreshold(value, float(beta.ppf(CONFIDENCE, alarms + 1, count - alarms)), count, alarms)


@dataclass
class Monitor:
    """Watches a conversation turn by turn: an alarm at the first score above a threshold that was fixed on whole benign conversations'
    highest scores.

    However long a conversation goes on, and wherever one stops to look, it has raised a false alarm only if its highest score is above
    the threshold; so the rate that was promised for whole conversations holds at any stopping time. Nothing is assumed of how turns of
    one conversation hang together.
    """

    threshold: float
    scores: list[float] = field(default_factory=list)

    def update(self, score: float) -> bool:
        """Take the next turn's score. Returns whether there has been an alarm by now."""
        self.scores.append(float(score))
        return self.alarm

    @property
    def highest(self) -> float:
        """Of the scores so far; -inf before the first."""
        return max(self.scores, default=-math.inf)

    @property
    def alarm(self) -> bool:
        return self.highest > self.threshold
