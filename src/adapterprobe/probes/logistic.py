"""Logistic regression with an L2 penalty: the standard linear probe (Alain & Bengio 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.probes.base import Probe
from adapterprobe.probes.newton import orthogonal, solve_logistic, standardise
from adapterprobe.probes.registry import register


@register("logistic")
class LogisticProbe(Probe):
    """L2-penalised logistic regression on standardised features; the optimum is scikit-learn's.

    Penalties that selection tries, and the folds of a cross-validation, are solved together (see `newton`).

    Args:
        C: inverse strength of the penalty, as in scikit-learn.
        scale: standardise features first.
        max_iter: Newton iterations.
    """

    def __init__(self, C: float = 0.01, scale: bool = True, max_iter: int = 100):
        self.C = C
        self.scale = scale
        self.max_iter = max_iter

    coef_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    intercept_: float
    n_iter_: int
    n_features_in_: int

    def _fit(self, X, y, sample_weight):
        self._fit_together([self], X, y, sample_weight, None)

    @staticmethod
    def _fit_together(probes: Sequence[LogisticProbe], X, y, sample_weight, kept) -> None:
        """Fit probes that differ in C alone, and in the rows that `kept` (rows x probes) gives them.

        Scaling comes from all rows (it knows no labels).
        """
        first = probes[0]
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        mean, scale = standardise(X, weight) if first.scale else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        Z = (X - mean) / scale
        Z, squares, rotation = orthogonal(Z)
        strengths = np.array([probe.C for probe in probes], float)
        weight = weight if kept is None else weight[:, None] * kept
        beta, iterations = solve_logistic(Z, squares, y, strengths, weight, first.max_iter)
        for probe, row in zip(probes, beta, strict=True):
            probe.mean_, probe.scale_, probe.n_iter_ = mean, scale, iterations
            probe.coef_ = row[:-1] @ rotation
            probe.intercept_ = float(row[-1])

    @classmethod
    def fit_settings(cls, settings, X, y, kept=None, **extras):
        probes = [cls(**params) for params in settings]
        alike = len({tuple(sorted((p.get_params() | {"C": 0}).items())) for p in probes}) == 1
        if not alike:
            return super().fit_settings(settings, X, y, kept, **extras)
        X, coded = probes[0]._checked(X, y)
        masks = np.ones((1, len(X)), bool) if kept is None else np.asarray(kept, bool)
        together = [cls(**params) for _ in masks for params in settings]
        for probe in together:
            probe.classes_, probe.n_features_in_ = probes[0].classes_, probes[0].n_features_in_
        columns = None if kept is None else np.repeat(masks, len(settings), axis=0).T
        cls._fit_together(together, X, coded, extras.get("sample_weight"), columns)
        return together

    def _decide(self, X):
        coef = self.coef_ / self.scale_
        return X @ coef + (self.intercept_ - self.mean_ @ coef)

    @property
    def direction(self):
        return self.coef_ / self.scale_

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
