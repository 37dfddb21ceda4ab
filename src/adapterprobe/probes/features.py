"""Features out of several hidden states, as scikit-learn transformers in front of a probe.

All take rows x states x width and are named in a run's configuration (`probes: [{probe: logistic, features: concat}]`).
"""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class _States(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        """Nothing is learned; the number of states is noted."""
        self.n_states_ = self._checked(X).shape[1]
        return self

    def transform(self, X) -> np.ndarray:
        """Rows x features.

        Raises:
            ValueError: X is not rows x states x width.
        """
        return self._combined(self._checked(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array, tags.input_tags.two_d_array = True, False
        return tags

    def _checked(self, X) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim < 3:
            raise ValueError(f"{type(self).__name__} takes rows x states x width, got an array of shape {X.shape}")
        return X

    def _combined(self, X: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not define _combined")


class Concatenated(_States):
    """All states side by side: rows x (states * width)."""

    def _combined(self, X):
        return X.reshape(len(X), -1)


class LayerSteps(_States):
    """What each state adds to the one before it, side by side: rows x ((states - 1) * width). A single state stays as it is."""

    def _combined(self, X):
        return (np.diff(X, axis=1) if X.shape[1] > 1 else X).reshape(len(X), -1)


class Difference(_States):
    """The last state less the first: rows x width (of adapter on and off: what the adapter changes)."""

    def _combined(self, X):
        return X[:, -1] - X[:, 0]


FEATURES = {"concat": Concatenated, "steps": LayerSteps}
"""By the name that a run's configuration gives them."""
