"""Gaussian process classification by stochastic variational inference (Hensman et al. 2015), with GPyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.special import ndtr

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.network import arrays_of
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.registry import register
from adapterprobe.probes.uncertainty import Uncertainty, logit, of_latent


def _gpytorch():
    """Imported late: it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gpytorch
    return gpytorch


def _model(inducing: torch.Tensor, width: int):
    gpytorch = _gpytorch()

    class Process(gpytorch.models.ApproximateGP):
        def __init__(self) -> None:
            distribution = gpytorch.variational.CholeskyVariationalDistribution(len(inducing))
            super().__init__(gpytorch.variational.VariationalStrategy(self, inducing, distribution, False))
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
            # Standardised rows are some sqrt(2 width) apart.
            self.covar_module.base_kernel.lengthscale = (2 * width) ** 0.5
            self.covar_module.outputscale = 4.0

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))  # pyright: ignore[reportArgumentType]: a mean module gives a tensor

    return Process()


@register("gp")
class GpProbe(UnweightedProbe):
    """RBF kernel with one learned length, Bernoulli likelihood with a probit link, inducing points among the rows.

    Args:
        inducing: most inducing points. steps, lr: of Adam. random_state: seed of the choice of inducing points.
    """

    def __init__(self, inducing: int = 64, steps: int = 100, lr: float = 0.05, random_state: int = 0):
        self.inducing = inducing
        self.steps = steps
        self.lr = lr
        self.random_state = random_state

    def _fit(self, X, y, sample_weight):
        gpytorch = _gpytorch()
        self.mean_, self.scale_ = standardise(X)
        Z, labels = self._tensor(X), torch.tensor(y, dtype=torch.float64)
        rng = np.random.default_rng(self.random_state)
        chosen = np.sort(rng.permutation(len(X))[: self.inducing])
        self.inducing_ = Z[chosen].numpy()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.random_state)
            model = self._rebuilt(X.shape[1])
            likelihood = gpytorch.likelihoods.BernoulliLikelihood()
            bound = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=len(X))
            model.train()
            optimiser = torch.optim.Adam(model.parameters(), lr=self.lr)
            for _ in range(self.steps):
                optimiser.zero_grad()
                (-bound(model(Z), labels)).backward()  # pyright: ignore[reportOperatorIssue]: the bound is a tensor
                optimiser.step()
        self.weights_ = arrays_of(model)

    def _tensor(self, X: np.ndarray) -> torch.Tensor:
        return torch.tensor((X - self.mean_) / self.scale_, dtype=torch.float64)

    def _rebuilt(self, width: int):
        return _model(torch.tensor(self.inducing_, dtype=torch.float64), width).double()

    def latent(self, X) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance) of the latent function at each row."""
        return self._latent(self._new(X))

    @torch.no_grad()
    def _latent(self, X):
        model = self._rebuilt(X.shape[1])
        model.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in self.weights_.items()})
        model.eval()
        parts = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in torch.split(self._tensor(X), 512):
                found = model(part)
                parts.append((found.mean.numpy(), found.variance.numpy()))
        mean, variance = (np.concatenate(side) for side in zip(*parts, strict=True))
        return mean, np.maximum(variance, 1e-12)

    def _decide(self, X):
        mean, variance = self._latent(X)
        return logit(ndtr(mean / np.sqrt(1 + variance)))

    def uncertainty(self, X) -> Uncertainty:
        """See `Uncertainty`."""
        return of_latent(*self.latent(X), link=ndtr)
