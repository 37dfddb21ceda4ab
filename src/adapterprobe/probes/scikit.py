"""Any classifier of scikit-learn as a probe, by the name of its class."""

from __future__ import annotations

import functools
import inspect

import numpy as np

from adapterprobe.probes.base import Probe, UnweightedProbe
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.uncertainty import logit


class ScikitProbe(UnweightedProbe):
    """A scikit-learn classifier on standardised features; see `scikit_probe`. Its parameters are the classifier's own.

    Classifiers cannot be saved in general without pickle, so the rows that it is fitted on are kept, and it is fitted anew on
    loading, with the same seed.
    """

    _made_of: type

    def __init__(self, **params):
        self._made_of(**params)
        self._params = params

    def get_params(self, deep=True):
        """The classifier's parameters that were given."""
        return dict(self._params)

    def set_params(self, **params):
        """Change parameters of the classifier."""
        self._made_of(**(self._params | params))
        self._params = self._params | params
        return self

    @classmethod
    def parameter_names(cls) -> list[str]:
        return sorted(inspect.signature(cls._made_of).parameters)

    def __reduce__(self):
        return _rebuilt, (self.probe_name, self._params), {k: v for k, v in vars(self).items() if k.endswith("_")}

    def _fit(self, X, y, sample_weight):
        self.mean_, self.scale_ = standardise(X)
        self.rows_, self.labels_ = (X - self.mean_) / self.scale_, np.asarray(y, np.int64)
        self._again()

    def _again(self) -> None:
        seeded = "random_state" in inspect.signature(self._made_of).parameters
        self._fitted = self._made_of(**({"random_state": 0} if seeded else {}) | self._params)
        self._fitted.fit(self.rows_, self.labels_)

    def _decide(self, X):
        if "_fitted" not in vars(self):
            self._again()
        Z = (X - self.mean_) / self.scale_
        if hasattr(self._fitted, "predict_proba"):
            return logit(self._fitted.predict_proba(Z)[:, 1])
        if hasattr(self._fitted, "decision_function"):
            return np.asarray(self._fitted.decision_function(Z), float)
        return logit(self._fitted.predict(Z).astype(float))


def _rebuilt(name: str, params: dict) -> Probe:
    made = scikit_probe(name)
    assert made is not None, f"scikit-learn has no classifier {name} any more"
    return made(**params)


@functools.cache
def scikit_probe(name: str) -> type[Probe] | None:
    """A probe class of scikit-learn's classifier of that name; None where there is none that works without further parts."""
    from sklearn.utils import all_estimators

    made_of = dict(all_estimators(type_filter="classifier")).get(name)
    if made_of is None:
        return None
    return type(name, (ScikitProbe,), {"_made_of": made_of, "probe_name": name, "__doc__": ScikitProbe.__doc__})
