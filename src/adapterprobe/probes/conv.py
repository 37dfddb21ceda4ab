"""A convolution across layers: how a state develops from layer to layer, not only what it is at one."""

from __future__ import annotations

import torch
from torch import nn

from adapterprobe.probes.network import DepthProbe
from adapterprobe.probes.registry import register


class _Convolution(nn.Module):
    def __init__(self, width: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, channels)
        self.across = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.out = nn.Linear(2 * channels, 1)

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        along = nn.functional.gelu(self.across(self.narrow(Z).transpose(1, 2)))
        return self.out(torch.cat([along.mean(-1), along.amax(-1)], dim=1))[:, 0]


@register("conv")
class ConvProbe(DepthProbe):
    """Every layer's state is mapped to a few channels, which are convolved across layers and pooled (mean and maximum).

    Args:
        depth: layers that two-dimensional X holds side by side (1: a network on one layer).
        channels: of the convolution. kernel: layers that it spans.
        steps, lr, decay: of AdamW. random_state: seed of the weights.
    """

    depth_of = "layers"

    def __init__(
        self,
        depth: int = 1,
        channels: int = 16,
        kernel: int = 3,
        steps: int = 150,
        lr: float = 0.003,
        decay: float = 0.1,
        random_state: int = 0,
    ):
        self.depth = depth
        self.channels = channels
        self.kernel = kernel
        self.steps = steps
        self.lr = lr
        self.decay = decay
        self.random_state = random_state

    def _network(self, width):
        return _Convolution(width // self.depth_, self.channels, self.kernel)

    @classmethod
    def candidates(cls, strengths):
        return [{"decay": 1.0}, {"decay": 0.1}]
