"""Controls of a run, on the very rows and features of its arms: what sees only the prompt, and probes that must not work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.prompt_controls import control_frame, prompt_only
from adapterprobe.analyses.refits import refit
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.evaluate.controls import chance_records, condition_alone, split_auroc, splits_with_rows
from adapterprobe.evaluate.statistics import auroc_columns
from adapterprobe.progress import bar

Fitted = Callable[[np.ndarray], np.ndarray]
"""From labels of the rows that are fitted on to scores of all rows."""


def shuffled_labels(
    frame: pd.DataFrame, fit_rows: np.ndarray, scores_by: Fitted, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of the same probe fitted on labels shuffled within data set and condition, by split."""
    rng = np.random.default_rng([seed, 1])
    truth = frame["truth"].to_numpy()
    cells = frame.iloc[fit_rows].groupby(["dataset", "condition"]).indices.values()
    scores = np.empty((len(frame), draws))
    for draw in range(draws):
        labels = truth[fit_rows].copy()
        for cell in cells:
            labels[cell] = labels[rng.permutation(cell)]
        scores[:, draw] = scores_by(labels)
    return {split: split_auroc(frame, scores, split) for split in splits_with_rows(frame)}


def _again(run: FittedRun, fit: ArmFit, X: np.ndarray) -> Fitted:
    """The arm's probe on other labels (see `refit`)."""

    def scores(labels: np.ndarray) -> np.ndarray:
        every = fit.rows.labels.copy()
        every[fit.rows.fit] = labels
        rows = replace(fit.rows, labels=every)
        return refit(run, fit, X, rows, rows.fit).log_odds_everywhere()

    return scores


def random_directions(
    frame: pd.DataFrame, X: np.ndarray, fit_rows: np.ndarray, sign_rows: np.ndarray, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of random directions through the standardised states, their sign set on `sign_rows`."""
    rng = np.random.default_rng([seed, 2])
    spread = X[fit_rows].std(0)
    Z = (X - X[fit_rows].mean(0)) / np.where(spread > 0, spread, 1.0)
    projected = Z @ rng.standard_normal((X.shape[1], draws))
    sides = auroc_columns(frame["truth"].to_numpy()[sign_rows], projected[sign_rows])
    projected = np.where(sides < 0.5, -projected, projected)
    return {split: split_auroc(frame, projected, split) for split in splits_with_rows(frame)}


def probe_controls(run: FittedRun) -> Findings:
    """Control records: what sees only the prompt, then chance for each arm of the lowest seed, then the condition alone."""
    config, encoded = run.config, run.encoded
    frame = control_frame(encoded.prompts)
    records = prompt_only(frame, np.array(encoded.where("probe-train")))
    mine = run.fits_of(probe=run.main_probe, seed=run.lowest_seed)
    sign_rows = np.array(encoded.where("select"))
    draws, seed = config.evaluate.draws, config.data.data_seed
    splits = splits_with_rows(frame)
    with bar(len(mine), "controls", unit="arm") as progress:
        for fit in mine:
            best = fit.selection.best
            X = fit.features(best.layer)
            detector = {split: float(split_auroc(frame, best.scores[:, None], split)[0]) for split in splits}
            drawn = {
                "shuffled labels": shuffled_labels(frame, fit.rows.fit, _again(run, fit, X), draws, seed),
                "random directions": random_directions(
                    frame, X.reshape(len(X), -1), fit.rows.fit, sign_rows, draws, seed
                ),
            }
            for name, values in drawn.items():
                records += chance_records(name, fit.arm, fit.probe, values, detector)
            progress.update()
    return {"controls.json": records + condition_alone(run.predictions, run.main_probe)}
