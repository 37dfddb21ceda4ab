"""Logistic regression on single tokens: each with its reply's label, pooled over the reply afterwards (Goldowsky-Dill et al. 2025)."""

from __future__ import annotations

import numpy as np

from adapterprobe.errors import ConfigError
from adapterprobe.probes.depth import Depth
from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register

POOLS = "mean, max or rolling:N"


@register("token_logistic")
class TokenLogisticProbe(Depth):
    """L2-penalised logistic regression in which every token is a row with the label of what it stands in, weighted so that each prompt or
    reply counts once; the score of a row is its tokens' log-odds, pooled. Where `token_labels` mark the false parts of a reply, its
    tokens have these labels instead.

    A token whose features are all nought is padding.

    Args:
        depth: tokens that two-dimensional X holds side by side.
        C: inverse strength of the penalty.
        pool: mean, max, or rolling:N (the largest mean over N neighbouring tokens).
        max_iter: Newton iterations.
    """

    depth_of = "tokens"
    wants = ("token_labels",)

    def __init__(self, depth: int = 1, C: float = 0.01, pool: str = "mean", max_iter: int = 100):
        self.depth = depth
        self.C = C
        self.pool = pool
        self.max_iter = max_iter

    def _fit(self, X, y, sample_weight, token_labels=None):
        window(self.pool)
        there = self._there(X)
        tokens = X.reshape(len(X), self.depth_, -1)[there]
        counts = there.sum(1)
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        labels = np.repeat(y, counts)
        if token_labels is not None:
            if token_labels.shape != there.shape:
                raise ValueError(f"token_labels has shape {token_labels.shape}, expected {there.shape}")
            labels = token_labels[there]
            if len(np.unique(labels)) < 2:
                raise ValueError("token_labels marks no token among those that are seen; raise select.tokens")
        inner = LogisticProbe(self.C, max_iter=self.max_iter)
        LogisticProbe._fit_together([inner], tokens, labels, np.repeat(weight / counts, counts), None)
        self.mean_, self.scale_, self.coef_ = inner.mean_, inner.scale_, inner.coef_
        self.intercept_, self.n_iter_ = inner.intercept_, inner.n_iter_

    def token_log_odds(self, states: np.ndarray) -> np.ndarray:
        """Log-odds of label 1 at each token: of ... x features, one value each. Centred as rows are that are scored alone."""
        if self.is_centred:
            # All places have one centre.
            states = (states - self.centre_.reshape(self.depth_, -1)[-1]) / self._spread_of_tokens()
        return self._token_log_odds(states)

    def _spread_of_tokens(self) -> np.ndarray | float:
        scale = vars(self).get("centre_scale_")
        return 1.0 if scale is None else scale.reshape(self.depth_, -1)[-1]

    def _token_log_odds(self, states: np.ndarray) -> np.ndarray:
        coef = self.coef_ / self.scale_
        return states @ coef + (self.intercept_ - self.mean_ @ coef)

    def _decide(self, X):
        odds = self._token_log_odds(X.reshape(len(X), self.depth_, -1))
        size = window(self.pool)
        return np.array([pooled(row[kept], size) for row, kept in zip(odds, self._there(X), strict=True)])

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]


def window(pool: str) -> int | None:
    """Neighbouring tokens that are averaged before the largest is taken; None: the mean of all.

    >>> window("mean"), window("max"), window("rolling:8")
    (None, 1, 8)

    Raises:
        ConfigError: no such pooling.
    """
    if pool == "mean":
        return None
    size = "1" if pool == "max" else pool.removeprefix("rolling:") if pool.startswith("rolling:") else ""
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f"pool '{pool}': expected {POOLS}")
    return int(size)


def pooled(values: np.ndarray, size: int | None) -> float:
    """One score of those of a row's tokens.

    >>> pooled(np.array([0.0, 3.0, 1.0]), None), pooled(np.array([0.0, 3.0, 1.0]), 1), pooled(np.array([0.0, 3.0, 1.0]), 2)
    (1.3333333333333333, 3.0, 2.0)
    """
    if size is None:
        return float(values.mean())
    size = min(size, len(values))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return float(((sums[size:] - sums[:-size]) / size).max())
