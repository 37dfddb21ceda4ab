"""Training for the worst group (Sagawa, Koh, Hashimoto & Liang 2020, "Distributionally robust neural networks for group shifts")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

GROUP_TENSOR = "group_dro.weights"
"""Of a checkpoint."""


class GroupWeights:
    """Weights of groups that rise with their loss: algorithm 1, an exponentiated gradient ascent beside the adapter's descent.

    Args:
        names: of each row, its group. step: eta of the paper.
    """

    def __init__(self, names: Sequence[str] | np.ndarray, step: float) -> None:
        _, self.codes = np.unique(np.asarray(names), return_inverse=True)
        self.step = step
        self.sizes = np.bincount(self.codes)
        self.weights = np.full(len(self.sizes), 1 / len(self.sizes))
        self._seen: list[tuple[int, float]] = []

    def of(self, rows: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """What the losses of rows are multiplied by, so that each group's mean loss counts by its weight, however many rows it has: 1 while
        groups weigh alike and are of one size."""
        each = self.weights / self.sizes * len(self.codes)
        return torch.tensor(each[self.codes[list(rows)]], dtype=torch.float32, device=device)

    def begin(self) -> None:
        """Forget the losses of a step that is taken again."""
        self._seen = []

    def observe(self, rows: Sequence[int], losses: torch.Tensor) -> None:
        """Note the losses of rows of the step that is being taken."""
        codes = self.codes[list(rows)]
        self._seen += [(int(code), value) for code, value in zip(codes, losses.detach().float().tolist(), strict=True)]

    def update(self) -> None:
        """Move the weights by the mean loss that each group had in the step; groups that were not in it stay."""
        codes = np.array([code for code, _ in self._seen])
        values = np.array([value for _, value in self._seen])
        for code in np.unique(codes):
            self.weights[code] *= np.exp(self.step * values[codes == code].mean())
        self.weights /= self.weights.sum()
        self._seen = []

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {GROUP_TENSOR: torch.tensor(self.weights)}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The weights of a checkpoint."""
        self.weights = tensors[GROUP_TENSOR].double().numpy().copy()
