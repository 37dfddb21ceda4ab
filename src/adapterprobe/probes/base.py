"""What every probe is, and the registry they add themselves to.

A probe is a scikit-learn classifier on rows x features with labels 0 and 1. To add one of your own::

    from adapterprobe.probes import Probe, register

    @register("nearest_mean")
    class NearestMean(Probe):
        def _fit(self, X, y, sample_weight):
            self.means_ = np.stack([X[y == label].mean(0) for label in (0, 1)])

        def _decide(self, X):
            gaps = ((X[:, None] - self.means_) ** 2).sum(-1)
            return gaps[:, 0] - gaps[:, 1]

and name it in `probes=[logistic, nearest_mean]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest

_REGISTRY: dict[str, type[Probe]] = {}


class Probe(ClassifierMixin, BaseEstimator):
    """Base of probes: checks input once, leaves `_fit` and `_decide` to the method.

    `decision_function` is the log-odds of label 1 (`classes_[1]`); `predict_proba` its logistic function.
    """

    probe_name: ClassVar[str] = ""

    def fit(self, X, y, sample_weight=None):
        """Fit on X (rows x features) and y (two classes).

        Raises:
            ValueError: NaN or infinite features, one class only, or shapes that do not match.
        """
        X, coded = self._checked(X, y)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, dtype=np.float64)
            if sample_weight.shape != (len(X),):
                raise ValueError(f"sample_weight has shape {sample_weight.shape}, expected ({len(X)},)")
            # A row of weight 0 is a row that is not there.
            kept = sample_weight > 0
            if not kept.any():
                raise ValueError("Sample weights must contain at least one non-zero number.")
            X, coded, sample_weight = X[kept], coded[kept], sample_weight[kept]
            if len(np.unique(coded)) < 2:
                raise ValueError("sample_weight leaves rows of one class or none; both classes need a weight above 0")
        self._fit(X, coded, sample_weight)
        return self

    def _checked(self, X, y) -> tuple[np.ndarray, np.ndarray]:
        """X in double precision and y as 0 or 1; `classes_` is set."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError(f"Classifier can't train when only one class is present: got {self.classes_[0]!r}")
        if len(self.classes_) > 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is multiclass: {self.classes_}"
            )
        return np.asarray(X, dtype=np.float64), coded

    def decision_function(self, X):
        """Log-odds of the second class: one value per row."""
        check_is_fitted(self)
        return self._decide(np.asarray(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]), np.float64))

    def predict_proba(self, X):
        """Probabilities of both classes: rows x 2."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

    def predict(self, X):
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    def _fit(self, X, y, sample_weight):
        raise TypeError(f"{type(self).__name__} does not define _fit")

    def _decide(self, X):
        raise TypeError(f"{type(self).__name__} does not define _decide")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    @classmethod
    def fit_settings(cls, settings: list[dict], X, y, kept=None) -> list[Probe]:
        """One fitted probe per setting; a method overrides it where settings can share work.

        Args:
            kept: folds x rows, True where a fold fits on a row; the probes of the first fold come first. None: one
                fit on all rows.
        """
        if kept is None:
            return [cls(**params).fit(X, y) for params in settings]
        return [cls(**params).fit(X[mask], y[mask]) for mask in kept for params in settings]

    @classmethod
    def candidates(cls, strengths: list[float]) -> list[dict]:
        """Parameter settings that selection tries, strongest regularisation first."""
        return [{}]


def register(name: str) -> Callable[[type[Probe]], type[Probe]]:
    """Class decorator: make a probe available under `name`.

    Raises:
        ConfigError: another class has that name already.
    """

    def add(cls: type[Probe]) -> type[Probe]:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
            raise ConfigError(f"a probe named '{name}' exists already ({_REGISTRY[name].__qualname__})")
        cls.probe_name = name
        _REGISTRY[name] = cls
        return cls

    return add


def available() -> list[str]:
    """Names of all registered probes."""
    return sorted(_REGISTRY)


def _lookup(name: str) -> type[Probe]:
    if name not in _REGISTRY:
        raise ConfigError(f"no probe '{name}'{nearest(name, available())}; there are {', '.join(available())}")
    return _REGISTRY[name]


def make(name: str, **params) -> Probe:
    """An unfitted probe.

    Raises:
        ConfigError: unknown name (the nearest is given) or unknown parameter.
    """
    cls = _lookup(name)
    try:
        return cls(**params)
    except TypeError as error:
        raise ConfigError(f"probe '{name}': {error}; its parameters are {sorted(cls().get_params())}") from error


def search_space(name: str, strengths: list[float]) -> list[dict]:
    """Parameter settings that selection tries for a probe."""
    return _lookup(name).candidates(sorted(strengths))


def fit_settings(name: str, settings: list[dict], X, y, kept=None) -> list[Probe]:
    """The named probe fitted in every setting (and fold, see `Probe.fit_settings`)."""
    return _lookup(name).fit_settings(settings, X, y, kept)
