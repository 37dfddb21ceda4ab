"""Probes that take rows x depth x features: several layers, or several tokens, of each row."""

from __future__ import annotations

import numpy as np

from adapterprobe.probes.base import Probe


class Depth(Probe):
    """Takes three dimensions as they are, and two as `depth` equal parts side by side.

    A subclass has a parameter `depth` and says by `depth_of` what the parts are.
    """

    depth: int

    def _flat(self, X, fitting=False):
        shape = getattr(X, "shape", None)
        if shape is None or len(shape) != 3:
            if fitting:
                self.depth_ = self.depth
            return X
        if fitting:
            self.depth_ = int(shape[1])
        elif shape[1] != self.depth_:
            raise ValueError(f"X has {shape[1]} {self.depth_of}, {type(self).__name__} was fitted on {self.depth_}")
        return np.asarray(X).reshape(shape[0], shape[1] * shape[2])

    def _checked(self, X, y):
        X, coded = super()._checked(X, y)
        if X.shape[1] % self.depth_:
            raise ValueError(f"{X.shape[1]} features cannot be split into {self.depth_} {self.depth_of} of equal width")
        return X, coded

    def _there(self, X: np.ndarray) -> np.ndarray:
        """rows x depth: whether a token is one; where all features are nought it is padding."""
        there = (X.reshape(len(X), self.depth_, -1) != 0).any(-1)
        # The last position is always there, even if its features are nought.
        there[:, -1] |= ~there.any(1)
        return there
