"""Would more labels help? And nested cross-validation: a second opinion that never looks at what is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from sklearn.base import clone

from adapterprobe.config import RunConfig
from adapterprobe.errors import DataError
from adapterprobe.models.encode import Encoded
from adapterprobe.pipeline.arms import ArmFit
from adapterprobe.pipeline.fitted import SearchJob
from adapterprobe.pipeline.views import sight_of
from adapterprobe.probes.select import auroc_within, fold_masks
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


def learning_curves(config: RunConfig, encoded: Encoded, fits: list[ArmFit]) -> list[dict]:
    """AUROC for truth on test with a share of the groups that are fitted on, at the layer and setting that were chosen with all of
    them. Arms of the lowest seed.

    Returns:
        A record per arm, probe and share: mean, lowest and highest over draws, and the groups that were fitted on.
    """
    test = np.array(encoded.where("test"))
    lowest = min(config.seeds)
    mine = [fit for fit in fits if fit.seed == lowest] if config.select.curve else []
    records = []
    for fit in _each(mine, "learning curves"):
        best, rows = fit.selection.best, fit.rows
        X = fit.features(best.layer)
        names = np.unique(rows.groups[rows.fit])
        for share in config.select.curve:
            count = max(2, round(share * len(names)))
            rng = np.random.default_rng([config.data.data_seed, count])
            found = []
            for _ in range(DRAWS if count < len(names) else 1):
                chosen = rows.fit[np.isin(rows.groups[rows.fit], rng.permutation(names)[:count])]
                try:
                    probe = clone(best.probe).fit(X[chosen], rows.labels[chosen], **rows.extras(chosen))
                except ValueError:
                    # Too few rows for this probe, or one class alone.
                    continue
                found.append(auroc_within(rows.labels[test], probe.decision_function(X[test]), rows.conditions[test]))
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


def nested_judgements(config: RunConfig, fits: list[ArmFit], n_layers: int) -> list[dict]:
    """AUROC by nested group cross-validation over the rows that are fitted on (Varma & Simon 2006): outside, each fold's groups are
    judged by a search over layers and settings, in folds, on the other groups. For the main probe, the same for all arms; nothing of
    `test` or of out-of-distribution data is looked at.

    Raises:
        DataError: too few groups.
    """
    specs = {spec.label: spec for spec in config.probe_specs}
    lowest = min(config.seeds)
    main = [fit for fit in fits if fit.seed == lowest and fit.probe == config.evaluate.probe]
    mine = main if config.select.nested else []
    records = []
    for fit in _each(mine, "nested cross-validation"):
        spec = specs[fit.probe]
        sight = replace(sight_of(spec, config, n_layers), kind="layer")
        values = []
        for kept in fold_masks(fit.rows, config.select.nested):
            rows = replace(fit.rows, fit=fit.rows.fit[kept])
            select = config.select.model_copy(update={"folds": INNER})
            try:
                best = SearchJob(spec, sight, rows, select).search(fit.features).best
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
