"""Is a prompt like those that a detector was judged on?"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5


class Novelty:
    """Distance to the nearest prompts that a detector was calibrated and judged on, and how unusual it is.

    The score of a state is its mean distance to its five nearest reference states of other groups, features scaled by their spread
    there (a k-nearest-neighbour detector, Sun et al. 2022). Its p-value compares it with those of the reference states themselves,
    each against states of other groups: among prompts of the same kind p is uniform, so that p <= 0.01 in one of a hundred.

    Args:
        reference: rows x features.
        groups: of the rows; a row is not compared with its own group.
    """

    def __init__(self, reference: np.ndarray, groups: np.ndarray) -> None:
        self.centre, spread = reference.mean(0), reference.std(0)
        self.scale = np.where(spread > 0, spread, 1.0)
        self.reference = self._scaled(reference)
        same = groups[:, None] == groups[None, :]
        self.usual = np.sort(self._nearest(self.reference, same))

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return ((X - self.centre) / self.scale).astype(np.float32)

    def _nearest(self, Z: np.ndarray, left_out: np.ndarray | None = None) -> np.ndarray:
        squares = (Z**2).sum(1)[:, None] + (self.reference**2).sum(1)[None, :] - 2 * Z @ self.reference.T
        distances = np.sqrt(np.maximum(squares, 0))
        if left_out is not None:
            distances[left_out] = np.inf
        count = min(NEIGHBOURS, distances.shape[1])
        nearest = np.partition(distances, count - 1, axis=1)[:, :count]
        return np.where(np.isfinite(nearest), nearest, np.nan).mean(1)

    def p_values(self, X: np.ndarray) -> np.ndarray:
        """Share of reference states that are as far from theirs, rows; at least 1 / (reference rows + 1)."""
        found = self._nearest(self._scaled(X))
        usual = self.usual[np.isfinite(self.usual)]
        farther = len(usual) - np.searchsorted(usual, found, side="left")
        return (1 + farther) / (len(usual) + 1)
