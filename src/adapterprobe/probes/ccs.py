"""Contrast-consistent search (Burns et al. 2022, section 2.2)."""

from __future__ import annotations

import numpy as np
import torch

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import orthogonal, standardise
from adapterprobe.probes.pairs import drawn_by_label, paired
from adapterprobe.probes.registry import register


@register("ccs")
class CcsProbe(UnweightedProbe):
    """p(x) = sigmoid(w x + b) that is consistent and confident on contrast pairs, of which one member is true.

    The loss is the mean of (p(x+) - (1 - p(x-)))^2 + min(p(x+), p(x-))^2 (Burns et al., eq. 1 and 2) on features standardised
    by side. Of several starts the one of least loss is kept, without labels. Then labels of the rows that are fitted on say
    which way it points (`sign_from_`), which the paper leaves open. `consistency_`, `confidence_` and `loss_` judge it without
    labels. Without `polarity` the sides are drawn; without `pairs` a pair is made of a row of each label, and it is no longer
    unsupervised.

    Args:
        starts: random initialisations. steps: of Adam. lr: its rate.
        penalty: weight of |w|^2 beside the loss (the paper has a little weight decay). With more features than pairs any
            directions are consistent and confident; the penalty prefers one along which pairs really lie apart.
        sign: `labels`, or `none` to leave the direction as it came.
        random_state: seed of the starts and of what is drawn.
    """

    wants = ("pairs", "polarity")

    def __init__(
        self,
        starts: int = 10,
        steps: int = 300,
        lr: float = 0.03,
        penalty: float = 0.1,
        sign: str = "labels",
        random_state: int = 0,
    ):
        self.starts = starts
        self.steps = steps
        self.lr = lr
        self.penalty = penalty
        self.sign = sign
        self.random_state = random_state

    def _fit(self, X, y, sample_weight, pairs=None, polarity=None):
        if self.sign not in ("labels", "none"):
            raise ValueError(f"sign must be labels or none, got {self.sign!r}")
        rng = np.random.default_rng(self.random_state)
        first, second = drawn_by_label(y, rng) if pairs is None else paired(pairs, polarity, rng)
        self.mean_, self.scale_ = standardise(X)
        Z = (X - self.mean_) / self.scale_
        sides = [Z[first], Z[second]]
        if polarity is not None and (polarity[first] != polarity[second]).all():
            sides = [(side - side.mean(0)) / standardise(side)[1] for side in sides]
        points, _, rotation = orthogonal(np.concatenate(sides))
        weights, losses = self._search(points[: len(first)], points[len(first) :])
        best = int(np.argmin(losses.sum(1) + self.penalty * (weights[:, :-1] ** 2).sum(1)))
        self.consistency_, self.confidence_ = (float(part) for part in losses[best])
        self.loss_ = self.consistency_ + self.confidence_
        self.coef_, self.intercept_ = weights[best, :-1] @ rotation, float(weights[best, -1])
        self.sign_from_ = self.sign
        if self.sign == "labels":
            says = Z @ self.coef_
            # Labels of equal rows weigh out: the mean difference decides, in whatever place the cut is.
            if says[y == 1].mean() < says[y == 0].mean():
                self.coef_, self.intercept_ = -self.coef_, -self.intercept_

    def _search(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All starts at once: weights (starts x (features + 1)), losses (starts x 2)."""
        a, b = (torch.tensor(side, dtype=torch.float32) for side in (first, second))
        generator = torch.Generator().manual_seed(self.random_state)
        width = a.shape[1]
        start = torch.randn(self.starts, width + 1, generator=generator) / max(1.0, width) ** 0.5
        start[:, -1] = 0
        weights = torch.nn.Parameter(start)
        optimiser = torch.optim.Adam([weights], lr=self.lr)

        def losses() -> torch.Tensor:
            p, q = (torch.sigmoid(side @ weights[:, :-1].T + weights[:, -1]) for side in (a, b))
            return torch.stack([((p + q - 1) ** 2).mean(0), (torch.minimum(p, q) ** 2).mean(0)], dim=1)

        for _ in range(self.steps):
            optimiser.zero_grad()
            (losses().sum() + self.penalty * (weights[:, :-1] ** 2).sum()).backward()
            optimiser.step()
        with torch.no_grad():
            return weights.double().numpy(), losses().double().numpy()

    def _decide(self, X):
        return (X - self.mean_) / self.scale_ @ self.coef_ + self.intercept_

    @classmethod
    def candidates(cls, strengths):
        return [{"penalty": penalty} for penalty in (0.1, 0.01)]

    @property
    def direction(self):
        return self.coef_ / self.scale_
