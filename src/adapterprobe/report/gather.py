"""Read a run's folder into what a report shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.columns import ARMS


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

    @property
    def arms(self) -> list[str]:
        return [arm for arm in ARMS if arm in set(self.results["arm"])]

    def probe_of(self, arm: str) -> str | None:
        """The probe that the main tables show for an arm."""
        return self.config.evaluate.probe if "probe" in arm else None

    def result(self, split: str, arm: str, metric: str = "auroc", **keys) -> dict | None:
        """One result record; by default the average over data sets and conditions, all groups, axis truth."""
        part = self.results[self.results["split"] == split]
        datasets = part["dataset"].unique()
        wanted = {
            "dataset": "mean" if "mean" in datasets else datasets[0] if len(datasets) else None,
            "condition": "mean",
            "axis": "truth",
            "filter": "all",
            "arm": arm,
            "metric": metric,
            "probe": self.probe_of(arm),
        } | keys
        for key, value in wanted.items():
            part = part[part[key].isna()] if value is None else part[part[key] == value]
        return part.iloc[0].to_dict() if len(part) else None


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
        )
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{folder} is not a finished run ({error}); run it again with the same command") from error
