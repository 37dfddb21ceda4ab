"""Attention over token positions: where in the prompt the truth is to be read is learned too (Shabalin & Belrose 2025)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from adapterprobe.probes.network import DepthProbe
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.registry import register


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, heads)
        self.value = nn.Linear(width, heads)
        # Uniform attention at the start: the probe begins as a mean over tokens.
        nn.init.zeros_(self.query.weight)

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        Z, there = Z[..., :-1], Z[..., -1] > 0
        scores = self.query(Z).masked_fill(~there[..., None], float("-inf"))
        return (scores.softmax(1) * self.value(Z)).sum(1).sum(-1)


@register("attention")
class AttentionProbe(DepthProbe):
    """Softmax attention of a learned query over tokens, and a linear map of what it finds.

    A token whose features are all nought is padding and gets no attention.

    Args:
        depth: tokens that two-dimensional X holds side by side.
        heads: of attention.
        steps, lr, decay: of AdamW. random_state: seed of the weights.
    """

    depth_of = "tokens"

    def __init__(
        self,
        depth: int = 1,
        heads: int = 2,
        steps: int = 150,
        lr: float = 0.01,
        decay: float = 0.3,
        random_state: int = 0,
    ):
        self.depth = depth
        self.heads = heads
        self.steps = steps
        self.lr = lr
        self.decay = decay
        self.random_state = random_state

    def _scaling(self, X):
        # Features are scaled alike at all positions, whose weights are shared.
        mean, scale = standardise(X.reshape(len(X), self.depth_, -1)[self._there(X)])
        return np.tile(mean, self.depth_), np.tile(scale, self.depth_)

    def _tensor(self, X):
        there = torch.tensor(self._there(X), dtype=torch.float32)
        return torch.cat([super()._tensor(X), there[..., None]], dim=-1)

    def _network(self, width):
        return _Attention(width // self.depth_, self.heads)

    @classmethod
    def candidates(cls, strengths):
        return [{"decay": 3.0}, {"decay": 0.3}]
