"""Probabilities that can be taken at their word: calibrated on one half of the groups of `calibrate`, judged elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from adapterprobe.evaluate import statistics

METHODS = {"Platt": "sigmoid", "isotonic": "isotonic", "temperature": "temperature"}
"""Platt 1999; Zadrozny & Elkan 2002; Guo et al. 2017, by scikit-learn's names."""
BINS = 10


class IdentityClassifier(ClassifierMixin, BaseEstimator):
    """Probabilities of label 1, given as the only feature, as a fitted classifier's own."""

    def fit(self, X, y):
        """Nothing is learned."""
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = 1
        self.is_fitted_ = True
        return self

    def predict_proba(self, X):
        """Rows x 2."""
        chance = np.asarray(X, float)[:, 0]
        return np.column_stack([1 - chance, chance])

    def decision_function(self, X):
        """Log-odds, finite."""
        chance = np.clip(np.asarray(X, float)[:, 0], 1e-6, 1 - 1e-6)
        return np.log(chance) - np.log1p(-chance)

    def predict(self, X):
        """0 or 1."""
        return (np.asarray(X, float)[:, 0] > 0.5).astype(int)


def as_it_is() -> IdentityClassifier:
    return IdentityClassifier().fit(None, None)


def calibrator(method: str, scores: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A map from scores in [0, 1] to calibrated probabilities, fitted on scores and labels of both classes."""
    # Folds make no difference to a frozen classifier; one map is fitted on all rows.
    frozen = FrozenEstimator(as_it_is())
    fitted = CalibratedClassifierCV(frozen, method=METHODS[method], cv=2).fit(scores[:, None], labels)
    return lambda new: fitted.predict_proba(np.asarray(new, float)[:, None])[:, 1]


def enough(labels: np.ndarray) -> bool:
    """Whether there are two rows of each label, which the least map needs."""
    return bool(np.bincount(labels, minlength=2).min() >= 2)


def halves(groups: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of rows that share no group: the first half calibrates, the second is for guarantees."""
    names = np.unique(groups)
    drawn = np.random.default_rng([seed, len(names)]).permutation(names)
    first = np.isin(groups, drawn[: len(names) // 2])
    return first, ~first


def reliability(labels: np.ndarray, chances: np.ndarray) -> list[dict]:
    """Of each tenth of the unit interval that has rows: mean probability, share of label 1, rows."""
    where = np.clip((chances * BINS).astype(int), 0, BINS - 1)
    return [
        {
            "chance": float(chances[where == bin].mean()),
            "share": float(labels[where == bin].mean()),
            "n": int((where == bin).sum()),
        }
        for bin in np.unique(where)
    ]


def calibration_records(detector: pd.DataFrame) -> list[dict]:
    """ECE and Brier score of one detector (rows of one arm, probe and seed, axis truth), as it is and calibrated, on every data
    set that is judged."""
    rows = detector[detector["split"] == "calibrate"]
    first, _ = halves(rows["group"].to_numpy(str))
    fit = rows[first]
    scores, labels = fit["score"].to_numpy(float), fit["label"].to_numpy(int)
    maps: dict[str, Callable[[np.ndarray], np.ndarray]] = {"as it is": lambda new: new}
    if enough(labels):
        maps |= {method: calibrator(method, scores, labels) for method in METHODS}
    records = []
    for (split, dataset), part in detector[detector["split"] != "calibrate"].groupby(["split", "dataset"], sort=False):
        truth, groups = part["label"].to_numpy(float), np.zeros(len(part), int)
        for method, mapped in maps.items():
            chances = mapped(part["score"].to_numpy(float))
            one = np.ones((1, 1))
            records.append(
                {
                    "split": split,
                    "dataset": dataset,
                    "method": method,
                    "ece": float(statistics.ece(truth, chances, groups, 1)(one)[0]),
                    "brier": float(statistics.brier(truth, chances, groups, 1)(one)[0]),
                    "bins": reliability(truth, chances),
                    "fitted_on_groups": int(fit["group"].nunique()),
                }
            )
    return records
