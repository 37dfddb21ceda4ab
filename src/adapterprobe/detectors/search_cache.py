"""Searches for probes, kept by content: what was fitted once is not fitted again."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import adapterprobe
import adapterprobe.probes
from adapterprobe.cache import digest, entry, write_atomic
from adapterprobe.config import ProbeConfig, SelectConfig
from adapterprobe.detectors.features import FeatureSpec, LayerFeatures
from adapterprobe.probes import load_probe, lookup, save_probe
from adapterprobe.probes.rows import Rows
from adapterprobe.probes.save import versions
from adapterprobe.probes.select import LayerFit, Search, Selection, select_probe
from adapterprobe.progress import say


@dataclass(frozen=True)
class SearchJob:
    """One probe in one arm, and how it is searched for."""

    spec: ProbeConfig
    probe_input: FeatureSpec
    rows: Rows
    select: SelectConfig

    def search(self, features: LayerFeatures, on_layer: Callable[[], object] = lambda: None) -> Selection:
        """See `select_probe`."""
        return select_probe(
            self.spec.probe, features, self.probe_input.layers, self.rows, self.how, on_layer, self.spec.params
        )

    @property
    def how(self) -> Search:
        """How layer and setting are chosen."""
        select = self.select
        return Search(
            select.strengths, select.folds, select.hold_out, select.rule, self.spec.centre, self.spec.centre_scale
        )

    def key(self, states: list[str]) -> str:
        """Of everything that the outcome depends on; the code of probes is part of it."""
        rows, select = self.rows, self.select
        return digest(
            states,
            self.spec.model_dump(exclude={"name", "layers", "features"}),
            [
                self.probe_input.layers,
                self.probe_input.several,
                self.probe_input.kind,
                select.tokens if self.probe_input.kind == "tokens" else 0,
            ],
            [rows.fit.tolist(), rows.select.tolist()],
            [array.tolist() for array in (rows.labels, rows.conditions, rows.groups)],
            [None if array is None else array.tolist() for array in (rows.pairs, rows.polarity)],
            [None if array is None else array.tolist() for array in (rows.weights, rows.token_labels)],
            [None if array is None else array.tolist() for array in (rows.wordings, rows.sets)],
            [select.strengths, select.folds, select.hold_out, select.rule],
            [_code(), _source(self.spec.probe), versions(adapterprobe.probes.make(self.spec.probe))],
        )


def code_digest(text: str) -> str:
    """Of what Python code does: comments, docstrings and layout do not count.

    >>> code_digest("x = 1  # one") == code_digest("x  =  1"), code_digest("x = 1") == code_digest("x = 2")
    (True, False)
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
    return digest(ast.dump(tree))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _code() -> tuple[str, ...]:
    """Of the code that every search depends on, whatever the probe: probes, what they see, the metric that selects."""
    package = Path(adapterprobe.__file__).parent
    files = [
        *sorted((package / "probes").glob("*.py")),
        package / "detectors/features.py",
        package / "evaluate/statistics.py",
    ]
    return tuple(code_digest(path.read_text("utf-8")) for path in files)


def _source(name: str) -> str:
    """Of a probe, which may be a user's own."""
    try:
        return code_digest(textwrap.dedent(inspect.getsource(lookup(name))))
    except (OSError, TypeError, SyntaxError):
        return name


def fitted(
    job: SearchJob, features: LayerFeatures, states: list[str], on_layer: Callable[[], object]
) -> tuple[Selection, float]:
    """A search, out of the cache if it was made before, and the seconds that it took then.

    Raises:
        DataError: the probe cannot be fitted on these features.
    """
    made: list[Selection] = []

    def make(folder: Path) -> None:
        began = time.perf_counter()
        selection = job.search(features, on_layer)
        seconds = time.perf_counter() - began
        made.append(selection)
        np.save(folder / "scores.npy", np.stack([fit.scores for fit in selection.fits]))
        for fit in selection.fits:
            save_probe(folder / f"layer-{fit.layer}", fit.probe)
        about = {
            "tried": selection.tried,
            "rule": selection.rule,
            "seconds": seconds,
            "fits": [[fit.layer, fit.select_auroc, fit.error, fit.constant] for fit in selection.fits],
        }
        write_atomic(folder / "search.json", json.dumps(about))

    folder = entry("probes", job.key(states), make, notice=say)
    about = json.loads((folder / "search.json").read_text("utf-8"))
    if made:
        return made[0], about["seconds"]
    scores = np.load(folder / "scores.npy")
    fits = []
    for (layer, auroc, error, constant), row in zip(about["fits"], scores, strict=True):
        fits.append(LayerFit(layer, load_probe(folder / f"layer-{layer}")[0], auroc, row, error, constant))
        on_layer()
    return Selection(tuple(fits), about["tried"], about["rule"]), about["seconds"]
