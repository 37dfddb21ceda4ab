"""Read a run's folder into what a report shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.columns import ARMS
from adapterprobe.evaluate.ranks import auroc_columns

KEYS = ("dataset", "condition", "axis", "filter", "probe")
"""What tells result records of one split, arm and metric apart."""


@dataclass(frozen=True)
class Gathered:
    """Everything of a run that a report shows."""

    folder: Path
    config: RunConfig
    provenance: dict
    results: pd.DataFrame
    verdicts: list[dict]
    controls: list[dict]
    about: dict
    predictions: pd.DataFrame
    layers: pd.DataFrame
    probes: dict
    """Content of `probes.json`."""
    challenge: dict
    """Content of `challenge.json`."""
    prompts: pd.DataFrame
    uncertainty: pd.DataFrame | None
    projections: pd.DataFrame | None

    @cached_property
    def layer_aurocs(self) -> pd.DataFrame:
        """AUROC by split, arm, probe, seed and layer, averaged over data sets and conditions."""
        rows = self.layers[self.layers["split"].isin(["test", "ood"])]
        names = ["arm", "probe", "seed", "layer"]
        tables = []
        for (split, _, _), cell in rows.groupby(["split", "dataset", "condition"], observed=True):
            wide = cell.pivot_table(index=["prompt_id", "label"], columns=names, values="score", observed=True)
            values = auroc_columns(wide.index.get_level_values("label").to_numpy(int), wide.to_numpy())
            tables.append(pd.DataFrame({"split": split, "auroc": values}, index=wide.columns).reset_index())
        return pd.concat(tables).groupby(["split", *names], as_index=False)["auroc"].mean()

    @property
    def arms(self) -> list[str]:
        return [arm for arm in ARMS if arm in set(self.results["arm"])]

    def probe_of(self, arm: str) -> str | None:
        """The probe that the main tables show for an arm."""
        return self.config.evaluate.probe if "probe" in arm else None

    def result(self, split: str, arm: str, metric: str = "auroc", **keys) -> dict | None:
        """One result record; by default the average over data sets and conditions, all groups, axis truth."""
        datasets = self._datasets.get(split, ())
        wanted = {
            "dataset": "mean" if "mean" in datasets else datasets[0] if len(datasets) else None,
            "condition": "mean",
            "axis": "truth",
            "filter": "all",
            "probe": self.probe_of(arm),
        } | keys
        return self._indexed.get((split, arm, metric, *(wanted[key] for key in KEYS)))

    @cached_property
    def _datasets(self) -> dict[str, list[str]]:
        return {split: list(part["dataset"].unique()) for split, part in self.results.groupby("split")}

    @cached_property
    def _indexed(self) -> dict[tuple, dict]:
        records = self.results.astype(object).where(self.results.notna(), None).to_dict("records")
        return {(r["split"], r["arm"], r["metric"], *(r[key] for key in KEYS)): r for r in reversed(records)}


def _table(path: Path) -> pd.DataFrame | None:
    return pd.read_parquet(path) if path.is_file() else None


def gather(folder: Path) -> Gathered:
    """Read a run's folder.

    Raises:
        OutputError: a file is missing or unreadable.
    """
    try:

        def load(name: str):
            return json.loads((folder / name).read_text("utf-8"))

        import yaml

        return Gathered(
            folder=folder,
            config=read_config(folder / "config.yaml"),
            provenance=yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["provenance"],
            results=pd.DataFrame(load("results.json")),
            verdicts=load("verdicts.json"),
            controls=load("controls.json"),
            about=load("about.json"),
            predictions=pd.read_parquet(folder / "predictions.parquet"),
            layers=pd.read_parquet(folder / "layers.parquet"),
            probes=load("probes.json"),
            challenge=load("challenge.json"),
            prompts=pd.read_parquet(folder / "prompts.parquet"),
            uncertainty=_table(folder / "uncertainty.parquet"),
            projections=_table(folder / "projections.parquet"),
        )
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{folder} is not a finished run ({error}); run it again with the same command") from error
