"""Probes whose settings are fitted together, because most of the work is the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.probes.base import UnweightedProbe


class SharedFits(UnweightedProbe):
    """A subclass fits probes that differ in C alone in `_fit_together`."""

    C: float
    classes_: np.ndarray
    n_features_in_: int

    @classmethod
    def _fit_together(cls, probes: Sequence, X: np.ndarray, y: np.ndarray, **extras) -> None:
        """Fit all of them on the same rows; `extras` are those that the probe wants, or None."""
        raise TypeError(f"{cls.__name__} does not define _fit_together")

    def _fit(self, X, y, sample_weight, **extras):
        self._fit_together([self], X, y, **extras)

    @classmethod
    def fit_settings(cls, settings, X, y, kept=None, **extras):
        probes = [cls(**params) for params in settings]
        alike = len({tuple(sorted((p.get_params() | {"C": 0}).items())) for p in probes}) == 1
        if not alike or extras.get("sample_weight") is not None:
            return super().fit_settings(settings, X, y, kept, **extras)
        found = []
        for mask in np.ones((1, len(X)), bool) if kept is None else np.asarray(kept, bool):
            mine = [cls(**params) for params in settings]
            here, coded = mine[0]._checked(X[mask], y[mask])
            for probe in mine[1:]:
                # What the checks found out: classes, features, and how many layers they are of.
                vars(probe).update({name: value for name, value in vars(mine[0]).items() if name.endswith("_")})
            given = {name: None if extras.get(name) is None else extras[name][mask] for name in cls.wants}
            cls._fit_together(mine, here, coded, **mine[0]._extras(here, **given))
            found += mine
        return found

    @classmethod
    def candidates(cls, strengths):
        return [{"C": strength} for strength in strengths]
