"""Epistemic and aleatoric uncertainty of judged prompts, by probes that tell them apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.evaluate.ood_detection import ood_detection_records
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.types import REPORTED_SPLITS


def uncertainty(run: FittedRun) -> Findings:
    """The table of every judged prompt, and whether it flags what is unlike what was fitted on."""
    frame = uncertainty_frame(run.encoded, run.fits)
    flagged = ood_detection_records(frame, run.config.evaluate.resamples)
    return {"uncertainty.parquet": frame, "probes.json": {"flagging": flagged}}


def uncertainty_frame(encoded: Encoded, fits: list[ArmFit]) -> pd.DataFrame:
    """One row per judged prompt, arm, probe and seed, at the selected layer; empty where no probe tells."""
    rows = np.flatnonzero([p.split in REPORTED_SPLITS for p in encoded.prompts])
    prompts = [encoded.prompts[row] for row in rows]
    common = {
        "prompt_id": [p.prompt_id for p in prompts],
        "dataset": [p.example.dataset for p in prompts],
        "split": [p.split for p in prompts],
        "group": [p.example.group for p in prompts],
        "condition": [p.condition for p in prompts],
    }
    parts = []
    for fit in fits:
        best = fit.selection.best
        uncertainty = getattr(best.probe, "uncertainty", None)
        if uncertainty is None:
            continue
        found = uncertainty(fit.features(best.layer)[rows])
        latent = np.full(len(rows), np.nan) if found.latent_variance is None else found.latent_variance
        parts.append(
            pd.DataFrame(
                common
                | {
                    "arm": fit.arm,
                    "probe": fit.probe,
                    "layer": best.layer,
                    "seed": fit.seed,
                    "epistemic": found.epistemic,
                    "aleatoric": found.aleatoric,
                    "latent_variance": latent,
                }
            )
        )
    columns = [*common, "arm", "probe", "layer", "seed", "epistemic", "aleatoric", "latent_variance"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
