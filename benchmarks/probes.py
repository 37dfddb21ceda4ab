"""(d) Logistic probes at all layers and strengths: against scikit-learn's loop; every probe by itself."""

from __future__ import annotations

import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from adapterprobe.engine import Engine
from adapterprobe.probes.registry import available, fit_settings
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.select import Search, select_probe
from adapterprobe.prompts.contrast_pairs import pair_numbers
from benchmarks.extraction import engine_pass
from benchmarks.workload import Row, few_shot, model, ratio, side_by_side

CHEAP = ("logistic", "mass_mean", "ridge", "lda", "lat", "crc", "ttpd", "ranking")
"""Probes in closed form, or nearly: those that a run can have at all layers without a thought."""
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
ROWS = 2000
SAMPLED = (3, 15, 27)
"""Layers that scikit-learn is timed on; its loop over all 31 takes minutes."""


def run() -> list[Row]:
    lm = model()
    encoded = few_shot(ROWS + 400)
    states = engine_pass(Engine(lm.model, lm.structure), encoded)[1].astype(np.float64)
    truth = np.array([int(p.example.truth) for p in encoded.prompts])
    fit, held = slice(ROWS), slice(ROWS, None)

    def ours(layers) -> list:
        settings = [{"C": strength} for strength in STRENGTHS]
        return [fit_settings("logistic", settings, states[layer, fit], truth[fit]) for layer in layers]

    def theirs(solver: str) -> list:
        fits = []
        for layer in SAMPLED:
            Z = StandardScaler().fit_transform(states[layer, fit])
            fits.append([LogisticRegression(C=c, solver=solver, max_iter=2000).fit(Z, truth[fit]) for c in STRENGTHS])
        return fits

    sides = {"ours": lambda: ours(SAMPLED)} | {
        name: lambda name=name: theirs(name) for name in ("lbfgs", "newton-cholesky", "newton-cg")
    }
    seconds, results = side_by_side(sides, rounds=2)
    whole, _ = side_by_side({"all": lambda: ours(range(lm.structure.n_layers + 1))}, rounds=1)
    rows = []
    for solver, bar in (("lbfgs", 10.0), ("newton-cholesky", 1.0), ("newton-cg", 1.0)):
        gaps, aurocs = [], []
        for mine, other, layer in zip(results["ours"], results[solver], SAMPLED, strict=True):
            Z = StandardScaler().fit(states[layer, fit]).transform(states[layer, held])
            for one, two in zip(mine, other, strict=True):
                gaps.append(np.abs(one.coef_ - two.coef_[0]).max() / np.abs(two.coef_).max())
                scores = one.decision_function(states[layer, held]), two.decision_function(Z)
                aurocs.append(abs(np.subtract(*(roc_auc_score(truth[held], s) for s in scores))))
        times = ratio(seconds[solver], seconds["ours"])
        rows.append(
            Row(
                f"{ROWS} rows x 576, 5 strengths, layers {SAMPLED}: ours against scikit-learn's {solver}",
                f"{times:.0f} times as fast; coefficients differ by at most {max(gaps):.1e} of the largest (its "
                f"tolerance is 1e-4), held-out AUROC by {max(aurocs):.1e}",
                f">= {bar:g}",
                times >= bar and max(aurocs) < 2e-3,
            )
        )
    rows.append(Row("all 31 layers x 5 strengths, ours", f"{whole['all'][0]:.1f} s"))
    return rows + every_probe(encoded, states)


def every_probe(encoded, states: np.ndarray) -> list[Row]:
    """Seconds of the whole search (all layers, all settings) for each probe, fitted on 2,000 rows and selected on 400; for those
    that are not cheap, of one layer."""
    prompts = encoded.prompts
    rows = Rows(
        labels=np.array([int(p.example.truth) for p in prompts]),
        fit=np.arange(ROWS),
        select=np.arange(ROWS, len(prompts)),
        conditions=np.array([p.condition for p in prompts]),
        groups=np.array([p.example.group for p in prompts]),
        pairs=pair_numbers(prompts),
    )
    found, cheap = [], 0.0
    for name in available():
        layers = range(len(states)) if name in CHEAP else [15]
        began = time.perf_counter()
        chosen = select_probe(name, states.__getitem__, layers, rows, Search(STRENGTHS))
        seconds = time.perf_counter() - began
        cheap += seconds if name in CHEAP else 0.0
        bar = {"gpp": 60, "gp": 60}.get(name)
        found.append(
            Row(
                f"{name}, {'all 31 layers' if name in CHEAP else 'one layer'}",
                f"{seconds:.1f} s, {chosen.tried} fits; AUROC of the chosen layer on 400 rows {chosen.best.select_auroc:.2f}",
                f"<= {bar} s" if bar else "",
                seconds <= bar if bar else None,
            )
        )
    found.append(Row("all cheap probes, all 31 layers, together", f"{cheap:.1f} s", "<= 60 s", cheap <= 60))
    return found
