"""What a probe does not know (epistemic) and what cannot be known (aleatoric), in nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import entr, expit

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Uncertainty:
    """Per row.

    `epistemic`: high where the probe has seen nothing like it. Mutual information of label and probe, H(E p) - E H(p)
    (Houlsby et al. 2011, eq. 2), unless the probe's own paper defines another. `aleatoric`: E H(p), the expected entropy of the
    label. `latent_variance`: of the log-odds, where there is one.
    """

    epistemic: np.ndarray
    aleatoric: np.ndarray
    latent_variance: np.ndarray | None = None


def entropy(chance: np.ndarray) -> np.ndarray:
    """Entropy of a yes-or-no outcome, nats."""
    return entr(chance) + entr(1 - chance)


def expected(function, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """E function(f) for f ~ N(mean, variance), by Gauss-Hermite quadrature with 64 nodes."""
    return function(mean[:, None] + np.sqrt(variance)[:, None] * NODES) @ WEIGHTS


def of_latent(mean: np.ndarray, variance: np.ndarray, link=expit) -> Uncertainty:
    """Of a Gaussian latent function behind a link to probabilities."""
    chance = expected(link, mean, variance)
    aleatoric = expected(lambda f: entropy(link(f)), mean, variance)
    return Uncertainty(np.maximum(entropy(chance) - aleatoric, 0), aleatoric, variance)


def of_members(chances: np.ndarray) -> Uncertainty:
    """Of an ensemble: members x rows of probabilities."""
    aleatoric = entropy(chances).mean(0)
    return Uncertainty(np.maximum(entropy(chances.mean(0)) - aleatoric, 0), aleatoric)


def logit(chance: np.ndarray) -> np.ndarray:
    """Log-odds, finite for any probability."""
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    return np.log(chance) - np.log1p(-chance)
