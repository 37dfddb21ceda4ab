"""Pre-registered hypotheses and what the data say of them.

A hypothesis is `ARM > ARM on test` or `... on ood`: the first arm's AUROC for truth (for deception, where replies are read) is higher (for another axis with
`... for lie`), averaged over seeds, conditions and the split's data sets. The estimand is *these trained adapters* on new questions: groups
are resampled, seeds are not. Supported: Holm-adjusted p below 0.05. Refuted: the upper bound of the difference
at the family's adjusted level is below the margin. Otherwise undecided, with the groups that would decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from adapterprobe.errors import ConfigError
from adapterprobe.evaluate.intervals import IDENTICAL
from adapterprobe.evaluate.schema import ARMS, HEAD, WITHHELD, WITHHELD_ON
from adapterprobe.hints import nearest
from adapterprobe.types import AXES, CLAIM, DECEPTION

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Hypothesis:
    text: str
    better: str
    worse: str
    split: str
    axis: str | None = None
    """None: the main one."""


def parse_hypothesis(
    text: str, axes: Sequence[str] | None = None, replies: bool = True, head: bool = True
) -> Hypothesis:
    """Read `ARM > ARM on test|ood`, with ` for AXIS` behind it where it is not about truth (of replies, deception).

    Args:
        axes: those that the run has; None: any.
        replies: whether replies are read, so that there are arms in front of them.
        head: whether a head is trained with the adapter.

    Raises:
        ConfigError: not of that form, or no such arm or axis.
    """
    match = re.fullmatch(
        rf"\s*(\S+)\s*>\s*(\S+)\s+on\s+(test|ood)(?:\s+for\s+({'|'.join((*AXES, CLAIM, DECEPTION))}))?\s*", text
    )
    if not match:
        raise ConfigError(f"hypothesis '{text}' not understood; expected for example 'adapter+probe > adapter on ood'")
    for arm in match.group(1, 2):
        if arm not in ARMS:
            raise ConfigError(f"hypothesis '{text}': no arm '{arm}'{nearest(arm, ARMS)}; there are {', '.join(ARMS)}")
        if arm in (WITHHELD, WITHHELD_ON) and not replies:
            raise ConfigError(f"hypothesis '{text}': the arm {arm} is there where replies are read (read.what=reply)")
        if arm == HEAD and not head:
            raise ConfigError(f"hypothesis '{text}': the arm {arm} is there with adapter.objective=detect")
    if axes is not None and match.group(4) not in (None, *axes):
        raise ConfigError(f"hypothesis '{text}': this run has no axis '{match.group(4)}'; it has {', '.join(axes)}")
    better, worse, split, axis = match.groups()
    return Hypothesis(text.strip(), better, worse, split, axis)


def holm(p_values: list[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return [float(p) for p in adjusted]


def p_value(value: float, error: float, n_groups: int) -> float:
    """Two-sided p of a difference (t with n_groups - 1 degrees of freedom).

    Where all resamples agree (error 0) it is the sign test's: as if each group had voted. An error that is NaN tells nothing.
    """
    if math.isnan(error) or error == IDENTICAL:
        return 1.0
    if error == 0:
        return 1.0 if value == 0 else min(1.0, 2 * 0.5**n_groups)
    return float(2 * stats.t.sf(abs(value) / error, max(1, n_groups - 1)))


def limits(value: float, error: float, n_groups: int, level: float) -> tuple[float, float]:
    """Confidence limits of a difference of two numbers in [0, 1]. An error that is NaN leaves all that is possible."""
    if math.isnan(error):
        return -1.0, 1.0
    if error == IDENTICAL:
        return value, value
    if error == 0:
        # All groups agree; so few of all there are could do so by luck, and the others may be anything (see `share_interval`).
        agree = (level / 2) ** (1 / n_groups)
        return value * agree - (1 - agree), value * agree + (1 - agree)
    reach = stats.t.ppf(1 - level / 2, max(1, n_groups - 1)) * error
    return float(value - reach), float(value + reach)


SEEDS_FOR_RECIPE = 5


def across_seed_interval(differences: list[float]) -> dict:
    """What the difference is over training seeds: its 95 % t-interval says what this way of training gives, on these
    questions. Below five seeds it says nothing.

    >>> across_seed_interval([0.1, 0.2])["recipe_low"] is None
    True
    """
    found: dict = {"by_seed": differences, "recipe_low": None, "recipe_high": None}
    if len(differences) >= SEEDS_FOR_RECIPE:
        error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
        found["recipe_low"], found["recipe_high"] = limits(float(np.mean(differences)), error, len(differences), LEVEL)
    return found


def groups_to_decide(value: float, error: float, n_groups: int, margin: float, family: int) -> int | None:
    """Groups with which the observed difference would be decided with 80 % power, either way.

    The standard error is taken to fall with the root of the number of groups. None where no number would do
    (the difference is exactly between the two).
    """
    if math.isnan(error) or error in (0, IDENTICAL):
        return None
    needed = stats.norm.ppf(1 - LEVEL / family / 2) + stats.norm.ppf(POWER)
    distances = [value, margin - value]
    options = [n_groups * (needed * error / gap) ** 2 for gap in distances if gap > 1e-9]
    return math.ceil(min(options)) if options else None


def judge(
    hypotheses: list[Hypothesis], measured: list[tuple[float, float, int] | None], margin: float, seeds: int
) -> list[dict]:
    """Verdict records of one family.

    Args:
        measured: difference, its standard error and the number of groups, for each hypothesis; None where there was nothing
            to measure (no cell with both classes), which counts in the family and stays undecided.
    """
    family = len(hypotheses)
    raw = [p_value(*m) if m else 1.0 for m in measured]
    adjusted = holm(raw)
    records = []
    for hypothesis, found, p, p_adjusted in zip(hypotheses, measured, raw, adjusted, strict=True):
        if found is None:
            records.append(
                dict.fromkeys(("difference", "low", "high", "upper_adjusted", "groups_to_decide"))
                | {"hypothesis": hypothesis.text, "p": p, "p_adjusted": p_adjusted, "margin": margin}
                | {"verdict": "undecided", "n_groups": 0, "seeds": seeds}
            )
            continue
        value, error, n_groups = found
        low, high = limits(value, error, n_groups, LEVEL)
        _, upper = limits(value, error, n_groups, LEVEL / family)
        if p_adjusted < LEVEL and value > 0:
            verdict = "supported"
        elif upper < margin:
            verdict = "refuted"
        else:
            verdict = "undecided"
        records.append(
            {
                "hypothesis": hypothesis.text,
                "difference": value,
                "low": low,
                "high": high,
                "p": p,
                "p_adjusted": p_adjusted,
                "upper_adjusted": upper,
                "margin": margin,
                "verdict": verdict,
                "n_groups": n_groups,
                "seeds": seeds,
                "groups_to_decide": None
                if verdict != "undecided"
                else groups_to_decide(value, error, n_groups, margin, family),
            }
        )
    return records
