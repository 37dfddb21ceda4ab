"""What the probes of a search are fitted on and judged by: rows, and folds of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from adapterprobe.errors import DataError


@dataclass(frozen=True)
class Rows:
    """What all probes of a search are fitted on and judged by.

    Args:
        labels: 0 or 1 for all rows; only those of the two splits are looked at.
        fit, select: indices of rows.
        conditions, groups, pairs, polarity: of all rows; the last two for probes that want them.
        wordings: of all rows, in what words they ask: template, format and system prompt.
        sets: of all rows, data set, polarity and prompt type: what features are centred within, where that is asked for.
        weights: how much each row counts in fitting, where they differ.
        token_labels: rows x tokens, 0 or 1, for probes over tokens that want them, where parts of a row are marked.
    """

    labels: np.ndarray
    fit: np.ndarray
    select: np.ndarray
    conditions: np.ndarray
    groups: np.ndarray
    pairs: np.ndarray | None = None
    polarity: np.ndarray | None = None
    weights: np.ndarray | None = None
    token_labels: np.ndarray | None = None
    wordings: np.ndarray | None = None
    sets: np.ndarray | None = None

    def extras(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Pairs, polarity, weights, sets, groups and labels of tokens of some rows, where there are any."""
        given = {
            "pairs": self.pairs,
            "polarity": self.polarity,
            "sets": self.sets,
            "groups": self.groups,
            "sample_weight": self.weights,
            "token_labels": self.token_labels,
        }
        return {name: value[rows] for name, value in given.items() if value is not None}


def auroc_within(labels: np.ndarray, scores: np.ndarray, conditions: np.ndarray) -> float:
    """AUROC within each condition, averaged: pooling would reward telling conditions apart."""
    parts = [
        roc_auc_score(labels[conditions == c], scores[conditions == c])
        for c in np.unique(conditions)
        if len(np.unique(labels[conditions == c])) == 2
    ]
    if not parts:
        raise DataError("the rows that layers are chosen by have one class only; use more groups, or fewer folds")
    return float(np.mean(parts))


@dataclass(frozen=True)
class Folds:
    """Folds x rows of `Rows.fit`: on which rows each fits, and by which it is judged.

    Args:
        crossed: groups and wordings are held out at once, so that some rows are in neither.
    """

    kept: np.ndarray
    judged: np.ndarray
    crossed: bool = False


def fold_masks(rows: Rows, folds: int, hold_out: str = "groups") -> Folds:
    """A group is held out whole; with `hold_out="wordings"` every wording is too, once beside each fold of groups.

    Raises:
        DataError: fewer groups than folds, or wordings too few to leave one out.
    """
    mine = rows.groups[rows.fit]
    if len(np.unique(mine)) < folds:
        raise DataError(
            f"{folds} folds need at least as many groups, {len(np.unique(mine))} are fitted on; lower select.folds"
        )
    split = GroupKFold(folds).split(rows.fit, rows.labels[rows.fit], mine)
    kept = np.stack([np.isin(np.arange(len(rows.fit)), train) for train, _ in split])
    if hold_out == "groups":
        return Folds(kept, ~kept)
    assert rows.wordings is not None
    words = rows.wordings[rows.fit]
    names = np.unique(words)
    if len(names) < 2:
        raise DataError(
            f"select.hold_out=wordings leaves one wording out, and what is fitted on has {len(names)} ({', '.join(map(str, names))}); "
            "give elicit.templates or elicit.system several, or use hold_out=groups"
        )
    asked = np.stack([words == name for name in names])
    crossed = [(fold & ~word, ~fold & word) for fold in kept for word in asked]
    usable = [
        (fit, judged) for fit, judged in crossed if len(np.unique(rows.labels[rows.fit][fit])) == 2 and judged.any()
    ]
    if not usable:
        raise DataError(
            "no fold of groups and wordings leaves both classes to fit on; use more groups, or hold_out=groups"
        )
    return Folds(np.stack([fit for fit, _ in usable]), np.stack([judged for _, judged in usable]), crossed=True)
