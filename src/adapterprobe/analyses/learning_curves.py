"""Would more labels help? And nested cross-validation: a second opinion that never looks at what is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.refits import refit
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.detectors.search_cache import SearchJob
from adapterprobe.errors import DataError
from adapterprobe.probes.rows import auroc_within, fold_masks
from adapterprobe.progress import bar

DRAWS = 5
"""Draws of groups at each share below 1."""
INNER = 3
"""Folds inside a fold of nested cross-validation."""


def _each(fits: list[ArmFit], what: str) -> Iterator[ArmFit]:
    with bar(len(fits), what, unit="probe") as progress:
        for fit in fits:
            yield fit
            progress.update()


def learning_curves(run: FittedRun) -> Findings:
    """Learning curves of all probes, and nested cross-validation of the main one."""
    return {"probes.json": {"curves": curve_records(run), "nested": nested_judgements(run)}}


def curve_records(run: FittedRun) -> list[dict]:
    """AUROC for truth on test with a share of the groups that are fitted on, at the layer and setting that were chosen with all of
    them. Arms of the lowest seed.

    Returns:
        A record per arm, probe and share: mean, lowest and highest over draws, and the groups that were fitted on.
    """
    config = run.config
    test = np.array(run.encoded.where("test"))
    mine = run.fits_of(seed=run.lowest_seed) if config.select.curve else []
    records = []
    for fit in _each(mine, "learning curves"):
        rows = fit.rows
        X = fit.features(fit.selection.best.layer)
        names = np.unique(rows.groups[rows.fit])
        for share in config.select.curve:
            count = max(2, round(share * len(names)))
            rng = np.random.default_rng([config.data.data_seed, count])
            found = []
            for _ in range(DRAWS if count < len(names) else 1):
                chosen = rows.fit[np.isin(rows.groups[rows.fit], rng.permutation(names)[:count])]
                try:
                    again = refit(run, fit, X, rows, chosen)
                except ValueError:
                    # Too few rows for this probe, or one class alone.
                    continue
                found.append(auroc_within(rows.labels[test], again.log_odds(test), rows.conditions[test]))
            if found:
                records.append(
                    {
                        "arm": fit.arm,
                        "probe": fit.probe,
                        "groups": count,
                        "auroc": float(np.mean(found)),
                        "low": float(min(found)),
                        "high": float(max(found)),
                        "draws": len(found),
                    }
                )
    return records


def nested_judgements(run: FittedRun) -> list[dict]:
    """AUROC by nested group cross-validation over the rows that are fitted on (Varma & Simon 2006): outside, each fold's groups are
    judged by a search over layers and settings, in folds, on the other groups. For the main probe, the same for all arms; nothing of
    `test` or of out-of-distribution data is looked at.

    Raises:
        DataError: too few groups.
    """
    config = run.config
    mine = run.fits_of(probe=run.main_probe, seed=run.lowest_seed) if config.select.nested else []
    records = []
    for fit in _each(mine, "nested cross-validation"):
        spec = run.config.probe_by_label[fit.probe]
        probe_input = replace(run.feature_specs[fit.probe], kind="layer")
        values = []
        for kept in fold_masks(fit.rows, config.select.nested).kept:
            rows = replace(fit.rows, fit=fit.rows.fit[kept])
            select = config.select.model_copy(update={"folds": INNER, "hold_out": "groups"})
            try:
                best = SearchJob(spec, probe_input, rows, select).search(fit.features).best
            except DataError:
                continue
            out = fit.rows.fit[~kept]
            values.append(auroc_within(rows.labels[out], best.scores[out], rows.conditions[out]))
        if values:
            error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            records.append(
                {
                    "arm": fit.arm,
                    "probe": fit.probe,
                    "auroc": float(np.mean(values)),
                    "error": error,
                    "folds": len(values),
                }
            )
    return records
