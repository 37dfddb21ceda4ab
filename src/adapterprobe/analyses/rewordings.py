"""The same questions put otherwise: what holds of a detector when the way of asking changes, and nothing is fitted anew."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.rescored import rescored
from adapterprobe.evaluate.scores import Detector, Labels, predictions, prompt_frame
from adapterprobe.evaluate.shifts import shift_records
from adapterprobe.progress import say
from adapterprobe.prompts.rewordings import Reworded, reworded_prompts


def rewordings(run: FittedRun) -> Findings:
    """Every arm asked otherwise (see `score_rewordings`); `shifts.parquet` has the scores."""
    if not run.config.evaluate.shifts:
        return {"challenge.json": {"shifts": [], "not_asked": []}}
    records, left_out, scores = score_rewordings(run)
    return {"challenge.json": {"shifts": records, "not_asked": left_out}, "shifts.parquet": scores}


def score_rewordings(run: FittedRun) -> tuple[list[dict], list[dict], pd.DataFrame]:
    """Every arm, as it was fitted, on questions of test asked in other ways, for the lowest seed. Thresholds are carried over.

    Returns:
        Records, what was left out, and the scores: `predictions.parquet` with a column `shift`.
    """
    config, lm = run.config, run.lm
    ways, left_out = reworded_prompts(config, run.questions, lm.tokenizer, lm.context_length, lm.vocabulary)
    for entry in left_out:
        say(f"not asked in the way '{entry['shift']}': {entry['reason']}")
    scored = rescored(run, {way.name: way.encoded for way in ways})
    parts = [_scored(run, way, scored[way.name]) for way in ways]
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return shift_records(run.predictions, scores, run.main_probe, config.evaluate.resamples), left_out, scores


def _scored(run: FittedRun, shift: Reworded, detectors: list[Detector]) -> pd.DataFrame:
    config, frame, seed = run.config, run.predictions, run.lowest_seed
    prompts = shift.encoded.prompts
    nothing = np.zeros(len(prompts), bool)
    labels = {seed: Labels.of(prompts, nothing, nothing)}
    unasked = pd.array([None] * len(prompts), dtype="boolean")
    shown = prompt_frame(prompts, nothing, unasked, config.data.data_seed, config.read, run.lm.name)
    scores = predictions(shown, labels, detectors, config.axes[:1])
    same = frame[(frame["axis"] == config.axes[0]) & (frame["seed"] == seed)]
    carried = same.groupby(["arm", same["probe"].fillna("")])["threshold"].first()
    keys = zip(scores["arm"], scores["probe"].fillna(""), strict=True)
    return scores.assign(threshold=[carried.get(key, np.nan) for key in keys], shift=shift.name)
