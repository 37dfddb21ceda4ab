"""Features centred set by set: a shift that a data set, a polarity or a wording gives to all its states tells nothing of one row.

A set's mean needs no labels. Centring every data set by its own is what the authors of mass-mean and TTPD probes do (Marks & Tegmark 2023,
section 4; Bürger, Hamprecht & Nadler 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

FEW = 32
"""Rows of a new set that it is centred by, where a few are what is had."""
FEWEST = 8
"""Rows whose mean is taken for a set's; where there are fewer, what is known of the other sets has to do."""


@dataclass(frozen=True)
class SetCentring:
    """What features are centred by.

    Args:
        centre: features (or depth x features), of rows whose set is not known: the mean of the sets' means.
        scale: their spread within a set, or None where nothing is scaled.
        sets: by name, (mean, spread) of each set that was looked at.
        padded: tokens that are not there (all features nought) stay nought, and count for nothing.
    """

    centre: np.ndarray
    scale: np.ndarray | None
    sets: Mapping[object, tuple[np.ndarray, np.ndarray | None]] = field(default_factory=dict)
    padded: bool = False

    @classmethod
    def of(cls, X: np.ndarray, sets, scaled: bool = False, padded: bool = False, fewest: int = FEWEST) -> SetCentring:
        """Means (and spreads) of sets: no label is looked at.

        Args:
            X: rows x features, or rows x depth x features.
            sets: of each row, its set. Those with fewer rows than `fewest` are centred as the others are on average.

        Raises:
            ValueError: `sets` has not one entry for each row.
        """
        names = np.asarray(sets)
        if names.shape != (len(X),):
            raise ValueError(f"sets has shape {names.shape}, expected ({len(X)},)")
        sizes = dict(zip(*(part.tolist() for part in np.unique(names, return_counts=True)), strict=True))
        large = [name for name, size in sizes.items() if size >= fewest]
        found = {name: _mean_and_spread(X[names == name], scaled, padded) for name in large}
        if not found:
            return cls(*_mean_and_spread(X, scaled, padded), {}, padded)
        centre = np.mean([mean for mean, _ in found.values()], axis=0)
        spreads = [spread for _, spread in found.values() if spread is not None]
        return cls(centre, np.mean(spreads, axis=0) if spreads else None, found, padded)

    def apply(self, X: np.ndarray, sets=None) -> np.ndarray:
        """X centred, double precision: rows of known sets by their own means, all others by `centre`."""
        X = np.asarray(X, np.float64)
        if X.shape[1:] != self.centre.shape:
            # Told by the checks that come after, in their words.
            return X
        if sets is None:
            return self._moved(X, self.centre, self.scale)
        names, moved = np.asarray(sets), np.empty_like(X)
        for name in np.unique(names).tolist():
            here = names == name
            moved[here] = self._moved(X[here], *self.sets.get(name, (self.centre, self.scale)))
        return moved

    def _moved(self, X: np.ndarray, mean: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
        moved = X - mean if spread is None else (X - mean) / spread
        return np.where((X != 0).any(-1, keepdims=True), moved, 0.0) if self.padded and X.ndim == 3 else moved


def _mean_and_spread(X: np.ndarray, scaled: bool, padded: bool) -> tuple[np.ndarray, np.ndarray | None]:
    X = np.asarray(X, np.float64)
    if padded and X.ndim == 3:
        # One mean for all places: how many tokens stand in front of the last is chance.
        rows = X[(X != 0).any(-1)]
        mean, spread = rows.mean(0), rows.std(0)
        mean, spread = np.broadcast_to(mean, X.shape[1:]).copy(), np.broadcast_to(spread, X.shape[1:]).copy()
    else:
        mean, spread = X.mean(0), X.std(0)
    if not scaled:
        return mean, None
    # A feature that is constant within a set, or a set of one row, is moved and not blown up.
    return mean, np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, 1.0)


class Centred(Protocol):
    """A fitted probe that centres what it is given."""

    def decision_function(self, X) -> np.ndarray:
        """Log-odds of the second class: one value per row."""
        ...

    def centred_on(self, X) -> Centred:
        """See `Probe.centred_on`."""
        ...


def scores_by_set(probe: Centred, X: np.ndarray, sets, way: str, groups=None) -> np.ndarray:
    """Log-odds of label 1, each row's set centred in one of three ways that need no label (`probe` was fitted on sets).

    Sets with fewer than 8 rows are centred by the sets that were fitted on, whatever the way.

    Args:
        sets: of each row, its set.
        way: `training`: by the sets that were fitted on; `own`: by all rows of the set that are given (transductive: the score of a row
            depends on those beside it); `few`: by at most 32 rows of the set, none of the same half of its groups as the row.
        groups: of each row, for `few`.
    """
    names = np.asarray(sets)
    scores = np.empty(len(X))
    for name in np.unique(names).tolist():
        rows = np.flatnonzero(names == name)
        if way == "training" or len(rows) < FEWEST:
            scores[rows] = probe.decision_function(X[rows])
        elif way == "own":
            scores[rows] = probe.centred_on(X[rows]).decision_function(X[rows])
        else:
            for mine, others in _halves(rows, groups):
                few = others[:FEW]
                by = probe.centred_on(X[few]) if len(few) >= FEWEST // 2 else probe
                scores[mine] = by.decision_function(X[mine])
    return scores


def _halves(rows: np.ndarray, groups) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows, those that they are centred by) twice: the groups of a set in two halves by a fixed draw."""
    names = np.arange(len(rows)) if groups is None else np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    first = np.isin(names, rng.permutation(names.max() + 1)[: (names.max() + 2) // 2])
    parts = [rng.permutation(rows[first]), rng.permutation(rows[~first])]
    return [(mine, others) for mine, others in (parts, parts[::-1]) if len(mine)]
