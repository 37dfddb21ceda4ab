"""Gaussian process probes (Wang, Ku, Baldridge, Griffiths & Kim 2023, arXiv 2305.18213): a Beta GP on states.

The classifier's probability at x has a Beta distribution, whose two parameters are exponentials of two Gaussian processes. With
labels as observations of Gamma variables approximated by log-normal ones (Milios et al. 2018, eq. 5 and 6), both posteriors are
those of GP regression, in closed form.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit

from adapterprobe.probes.base import UnweightedProbe
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.registry import register
from adapterprobe.probes.uncertainty import Uncertainty, entropy, expected, logit


def log_normal(alpha: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the logarithm whose log-normal has the moments of Gamma(alpha, 1): variance ln(1 / alpha + 1), mean
    ln(alpha) - variance / 2 (Milios et al. 2018, eq. 6)."""
    variance = np.log(1 / np.asarray(alpha) + 1)
    return np.log(alpha) - variance / 2, variance


def cosine(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Cosine of rows with an entry of 1 appended (the bias): rows of A x rows of B."""
    A, B = (np.column_stack([side, np.ones(len(side))]) for side in (A, B))
    return A @ B.T / np.linalg.norm(A, axis=1)[:, None] / np.linalg.norm(B, axis=1)


@register("gpp")
class GppProbe(UnweightedProbe):
    """Beta GP with the cosine kernel, prior Beta(epsilon, epsilon) everywhere.

    `predict_proba` is the paper's judged probability, the mean of the classifier; `uncertainty` its epistemic uncertainty (the
    differential entropy of the probability's distribution, the negative of "episteme") and aleatory one (the expected entropy
    of the label, "alea"). Expectations are by quadrature, where the authors draw samples. `latent_variance` is what they detect
    out-of-distribution inputs by.

    Args:
        epsilon: of the prior; 0.1 in the paper.
        strength: how much an observation counts; 5 in the paper.
        scale: standardise features first (the paper does not). Raw states of language models all point the same way, and the
            kernel would be 1 everywhere.
    """

    def __init__(self, epsilon: float = 0.1, strength: float = 5.0, scale: bool = True):
        self.epsilon = epsilon
        self.strength = strength
        self.scale = scale

    def _fit(self, X, y, sample_weight):
        self.mean_, self.scale_ = standardise(X) if self.scale else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        self.rows_ = (X - self.mean_) / self.scale_
        prior_mean, prior_variance = log_normal(self.epsilon)
        self.prior_mean_, self.prior_variance_ = float(prior_mean), float(prior_variance)
        kernel = self.prior_variance_ * cosine(self.rows_, self.rows_)
        weights, factors = [], []
        for seen in (y, 1 - y):
            observed, noise = log_normal(self.epsilon + self.strength * seen)
            factor = cho_factor(kernel + np.diag(noise), lower=True)
            weights.append(cho_solve(factor, observed - self.prior_mean_))
            factors.append(np.tril(factor[0]))
        self.weights_, self.factors_ = np.stack(weights), np.stack(factors)

    def latent(self, X) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance) of the log-odds of each row: of the difference of the two processes."""
        return self._latent(self._new(X))

    def _latent(self, X):
        across = self.prior_variance_ * cosine(self.rows_, (X - self.mean_) / self.scale_)
        mean = (self.weights_[0] - self.weights_[1]) @ across
        explained = sum((solve_triangular(f, across, lower=True) ** 2).sum(0) for f in self.factors_)
        return mean, np.maximum(2 * self.prior_variance_ - explained, 1e-12)

    def _decide(self, X):
        return logit(expected(expit, *self._latent(X)))

    def uncertainty(self, X) -> Uncertainty:
        """Of the paper's kind: `epistemic` is a differential entropy, which may be negative."""
        mean, variance = self.latent(X)
        # H(p) = H(f) + E ln |dp/df|, with p the logistic function of f.
        spread = 0.5 * np.log(2 * np.pi * np.e * variance)
        epistemic = spread + mean - 2 * expected(lambda f: np.logaddexp(0, f), mean, variance)
        return Uncertainty(epistemic, expected(lambda f: entropy(expit(f)), mean, variance), variance)
