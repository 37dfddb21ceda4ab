"""Probes that are small networks: full-batch Adam, seeds, and weights as arrays, so that they are saved without pickle."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.depth import Depth
from adapterprobe.probes.newton import standardise


def arrays_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


class NetworkProbe(UnweightedProbe):
    """A subclass makes the network of a width in `_network`, which gives log-odds; `_loss` may add to the log-loss.

    Subclasses have parameters `steps` (of AdamW), `lr`, `decay` and `random_state`.
    """

    steps: int
    lr: float
    decay: float
    random_state: int

    def _fit(self, X, y, sample_weight):
        self.mean_, self.scale_ = self._scaling(X)
        Z, labels = self._tensor(X), torch.tensor(y, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            network = self._network(X.shape[1]).train()
            optimiser = torch.optim.AdamW(network.parameters(), lr=self.lr, weight_decay=self.decay)
            for _ in range(self.steps):
                optimiser.zero_grad()
                self._loss(network, Z, labels).backward()
                optimiser.step()
        self.weights_ = arrays_of(network)

    def _scaling(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return standardise(X)

    def _tensor(self, X: np.ndarray) -> torch.Tensor:
        return torch.tensor((X - self.mean_) / self.scale_, dtype=torch.float32)

    def _loss(self, network: nn.Module, Z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(network(Z), labels)

    @torch.no_grad()
    def _decide(self, X):
        network = self._network(X.shape[1]).eval()
        network.load_state_dict({name: torch.from_numpy(array) for name, array in self.weights_.items()})
        # In double precision a row's score does not depend on the rows beside it.
        return network.double()(self._tensor(X).double()).numpy()

    def _network(self, width: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} does not define _network")


class DepthProbe(Depth, NetworkProbe):
    """A network on rows x depth x features; two-dimensional X is `depth` equal parts side by side."""

    def _tensor(self, X):
        flat = super()._tensor(X)
        return flat.view(len(flat), self.depth_, -1)
