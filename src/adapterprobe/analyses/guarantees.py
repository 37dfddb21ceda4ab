"""How far scores can be trusted as probabilities, and what can be promised of them on new groups."""

from __future__ import annotations

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.evaluate.guarantees import guarantee_records


def guarantees(run: FittedRun) -> Findings:
    """Calibration and conformal sets of every detector, from its scores alone."""
    settings = run.config.evaluate
    calibration, conformal = guarantee_records(run.predictions, settings.coverage, settings.false_positive_rate)
    return {"probes.json": {"calibration": calibration, "conformal": conformal}}
