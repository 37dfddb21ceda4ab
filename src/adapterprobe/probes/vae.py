"""A variational autoencoder with a classifier on its latent (Kingma & Welling 2014; Kingma et al. 2014, model M2's idea)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapterprobe.probes.network import NetworkProbe
from adapterprobe.probes.registry import register


class _Autoencoder(nn.Module):
    def __init__(self, width: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.back = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, width))
        self.head = nn.Linear(latent, 1)

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        return self.head(self.mean(self.into(Z)))[:, 0]


@register("vae")
class VaeProbe(NetworkProbe):
    """Minimises reconstruction (squared error a feature), `beta` times the KL of the latent from N(0, I) a feature, and
    `label_weight` times the log-loss of a linear head on the sampled latent; scores by the head on the latent's mean.

    Args:
        hidden: units of encoder and decoder. latent: dimensions.
        beta, label_weight: see above.
        steps, lr, decay: of AdamW. random_state: seed of weights and samples.
    """

    def __init__(
        self,
        hidden: int = 64,
        latent: int = 8,
        beta: float = 1.0,
        label_weight: float = 1.0,
        steps: int = 300,
        lr: float = 0.003,
        decay: float = 0.1,
        random_state: int = 0,
    ):
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.label_weight = label_weight
        self.steps = steps
        self.lr = lr
        self.decay = decay
        self.random_state = random_state

    def _network(self, width):
        return _Autoencoder(width, self.hidden, self.latent)

    def _loss(self, network: Any, Z, labels):
        inner = network.into(Z)
        mean, log_variance = network.mean(inner), network.log_variance(inner).clamp(-10, 10)
        sample = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        rebuilt = ((network.back(sample) - Z) ** 2).mean()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / Z.shape[1]
        said = nn.functional.binary_cross_entropy_with_logits(network.head(sample)[:, 0], labels)
        return rebuilt + self.beta * kl + self.label_weight * said

    @classmethod
    def candidates(cls, strengths):
        return [{"label_weight": 0.1}, {"label_weight": 1.0}]
