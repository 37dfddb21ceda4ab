"""What probes look along: directions compared between probes, layers and arms, and states projected on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.probes import Probe
from adapterprobe.probes.uncertainty import logit

COMPARED = ("base+probe", "adapter+probe")
"""Arms whose features are states of one layer each, so that directions can be compared between them."""


def directions(run: FittedRun) -> Findings:
    """Cosines between directions and projections on them, where the run is to have them."""
    if not run.config.evaluate.directions:
        return {}
    return {"probes.json": {"cosines": cosines(run)}, "projections.parquet": projections(run)}


def unit(vector: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(vector)
    return vector / size if size > 0 else vector


def direction_at(fit: ArmFit, layer: int, width: int) -> np.ndarray | None:
    """The unit direction of a probe at a layer, where it is linear in the states of that layer alone."""
    found = next((f for f in fit.selection.fits if f.layer == layer and not f.constant), None)
    direction = None if found is None else getattr(found.probe, "state_direction", None)
    return unit(direction) if direction is not None and direction.shape == (width,) else None


def cosines(run: FittedRun) -> dict:
    """Cosine similarities of directions, of the lowest seed.

    Returns:
        `probes`: for each compared arm, the names and their matrix, at the layer that the main probe selected there; `layers`: of
        the main probe between all layers of base+probe; `arms`: of the main probe, adapter off with adapter on, by layer.
    """
    main, width = run.main_probe, run.lm.structure.width
    mine = {(f.arm, f.probe): f for f in run.fits_of(seed=run.lowest_seed)}
    found: dict = {"probes": {}, "layers": None, "arms": []}
    for arm in COMPARED:
        layer = mine[arm, main].selection.best.layer
        along = {probe: direction_at(fit, layer, width) for (name, probe), fit in mine.items() if name == arm}
        along = {probe: d for probe, d in along.items() if d is not None}
        if along:
            found["probes"][arm] = {"layer": layer, **_matrix(along)}
    by_layer = {
        arm: {f.layer: direction_at(mine[arm, main], f.layer, width) for f in mine[arm, main].selection.fits}
        for arm in COMPARED
    }
    base = {str(layer): d for layer, d in by_layer["base+probe"].items() if d is not None}
    if base:
        found["layers"] = _matrix(base)
    for layer, off in by_layer["base+probe"].items():
        on = by_layer["adapter+probe"].get(layer)
        if off is not None and on is not None:
            found["arms"].append({"layer": layer, "cosine": float(off @ on)})
    return found


def _matrix(directions: dict[str, np.ndarray]) -> dict:
    stacked = np.stack(list(directions.values()))
    return {"names": list(directions), "cosines": np.round(stacked @ stacked.T, 4).tolist()}


def projections(run: FittedRun) -> pd.DataFrame:
    """Judged prompts' states in two planes, for each compared arm of the lowest seed at the main probe's layer: the first two
    principal components of what was fitted on, and the probe's log-odds against the main component of what is left without
    its direction."""
    rows = np.flatnonzero([p.split in ("test", "ood") for p in run.encoded.prompts])
    prompts = [run.encoded.prompts[row] for row in rows]
    parts = []
    for fit in run.fits_of(probe=run.main_probe, seed=run.lowest_seed):
        if fit.arm not in COMPARED:
            continue
        best = fit.selection.best
        X = fit.features(best.layer)
        scores = logit(best.scores[rows])
        X = X.reshape(len(X), -1).astype(np.float64)
        learned = X[fit.rows.fit]
        axes = PCA(2, random_state=0).fit(learned)
        plane = axes.transform(X[rows])
        across = PCA(1, random_state=0).fit(_without(learned, best.probe)).transform(_without(X[rows], best.probe))
        parts.append(
            pd.DataFrame(
                {
                    "prompt_id": [p.prompt_id for p in prompts],
                    "dataset": [p.example.dataset for p in prompts],
                    "split": [p.split for p in prompts],
                    "condition": [p.condition for p in prompts],
                    "truth": [int(p.example.truth) for p in prompts],
                    "arm": fit.arm,
                    "layer": best.layer,
                    "pca_1": plane[:, 0],
                    "pca_2": plane[:, 1],
                    "along": scores,
                    "across": across[:, 0],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _without(X: np.ndarray, probe: Probe) -> np.ndarray:
    direction = probe.state_direction
    if direction is None or direction.shape != X.shape[1:]:
        return X
    along = unit(direction)
    return X - np.outer(X @ along, along)
