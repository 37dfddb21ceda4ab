"""What will the model say, and how surely can it be foretold? Its own p_positive from its states, with conformal intervals."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
from mapie.regression import ConformalizedQuantileRegressor
from sklearn.decomposition import PCA
from sklearn.linear_model import QuantileRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import p_positive
from adapterprobe.evaluate.calibration import halves
from adapterprobe.evaluate.conformal import needed_for_sets, one_row_per_group
from adapterprobe.evaluate.intervals import mean_interval

COMPONENTS = 8
PENALTY = 1e-3


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """MAPIE tells the root logger of crossing quantiles, which are put in order here."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def answer_prediction(run: FittedRun) -> Findings:
    """Conformalised quantile regression (Romano et al. 2019, by MAPIE) of p_positive on the states of `base+probe` and
    `adapter+probe` at the layer that the main probe selected.

    Quantiles are fitted on probe-train, made valid on one row of each group of the second half of calibrate, and judged on test
    and out of distribution.
    """
    says = {
        "base+probe": p_positive(run.base.logprobs),
        "adapter+probe": p_positive(run.adapted[run.lowest_seed].logprobs),
    }
    return {"probes.json": {"soft": answer_prediction_records(run, says)}}


def answer_prediction_records(run: FittedRun, says: dict[str, np.ndarray]) -> list[dict]:
    """A record per arm, split and data set.

    Args:
        says: p_positive of every prompt by arm.
    """
    config, encoded = run.config, run.encoded
    level = config.evaluate.coverage
    calibrate = np.array(encoded.where("calibrate"))
    groups = encoded.column(lambda p: p.example.group)
    second = calibrate[halves(groups[calibrate])[1]]
    second = second[one_row_per_group(groups[second])]
    least = needed_for_sets(level)
    if len(second) < least:
        reason = f"{len(second)} groups calibrate, at least {least} needed for {level:g}"
        return [{"arm": arm, "refused": reason} for arm in says]
    records = []
    for arm, target in says.items():
        fit = run.main_fit(arm)
        X = fit.features(fit.selection.best.layer).reshape(len(encoded), -1)
        mine = fit.rows.fit
        models = []
        for quantile in ((1 - level) / 2, (1 + level) / 2, 0.5):
            model = make_pipeline(
                StandardScaler(),
                PCA(min(COMPONENTS, len(mine) - 1, X.shape[1]), random_state=0),
                StandardScaler(),
                QuantileRegressor(quantile=quantile, alpha=PENALTY, solver="highs"),
            )
            models.append(model.fit(X[mine], target[mine]))
        conformal = ConformalizedQuantileRegressor(models, confidence_level=level, prefit=True)
        conformal.conformalize(X[second], target[second])
        for split in ("test", "ood"):
            for dataset in sorted({encoded.prompts[row].example.dataset for row in encoded.where(split)}):
                rows = np.array(
                    [row for row in encoded.where(split) if encoded.prompts[row].example.dataset == dataset]
                )
                with _hushed():
                    limits = conformal.predict_interval(X[rows], symmetric_correction=True)[1][:, :, 0]
                low, high = np.sort(np.clip(limits, 0, 1), axis=1).T
                inside = (target[rows] >= low) & (target[rows] <= high)
                covered = mean_interval(inside.astype(float), groups[rows])
                records.append(
                    {
                        "arm": arm,
                        "split": split,
                        "dataset": dataset,
                        "nominal": level,
                        "coverage": covered.estimate,
                        "low": covered.low,
                        "high": covered.high,
                        "width": float((high - low).mean()),
                        "holds": bool(covered.high >= level),
                    }
                )
    return records
