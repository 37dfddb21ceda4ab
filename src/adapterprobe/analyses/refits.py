"""The probe of an arm, at its own layer and in its own setting, fitted once more on other rows or other labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterprobe.analyses.fitted_run import FittedRun
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.detectors.search_cache import SearchJob
from adapterprobe.probes import Probe
from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.select import Search, fitted_probes, scores_everywhere, scores_of


@dataclass(frozen=True)
class Refit:
    """What was fitted, and what it was fitted on."""

    probe: Probe
    X: np.ndarray
    rows: Rows
    how: Search
    centring: SetCentring | None

    def log_odds(self, judged: np.ndarray) -> np.ndarray:
        """Of some rows, by their indices."""
        return scores_of(self.probe, self.X, self.rows, judged, self.how, self.centring)

    def log_odds_everywhere(self) -> np.ndarray:
        """Of all rows."""
        return scores_everywhere(self.probe, self.X, self.rows, self.how, self.centring)


def refit(run: FittedRun, fit: ArmFit, X: np.ndarray, rows: Rows, chosen: np.ndarray) -> Refit:
    """Fit again, with the pairs, polarities and sets that belong to the rows.

    Args:
        X: what the probe sees of all rows at its layer (`fit.features(fit.selection.best.layer)`).
        rows: those of the fit, perhaps with other labels. chosen: indices of the rows that are fitted on.

    Raises:
        ValueError: the probe cannot be fitted on these: too few rows, or one class alone.
    """
    spec = run.config.probe_by_label[fit.probe]
    how = SearchJob(spec, run.feature_specs[fit.probe], rows, run.config.select).how
    setting = [fit.selection.best.probe.get_params()]
    ((probe,), centring) = fitted_probes(spec.probe, setting, X, rows, chosen, how)
    return Refit(probe, X, rows, how, centring)
