"""Read a run's folder into what a report shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_run_config
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.schema import ARMS, CLASSES, has_probe
from adapterprobe.evaluate.statistics import auroc_columns
from adapterprobe.output_folder import AGAIN, read_predictions
from adapterprobe.small_files import read_json, read_records, read_table

KEYS = ("dataset", "condition", "axis", "filter", "probe")
"""What tells result records of one split, arm and metric apart."""


@dataclass(frozen=True)
class RunResults:
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
    tokens: pd.DataFrame | None
    """Scores at single tokens of replies, where they are read."""

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
    def axis(self) -> str:
        """What detectors are made for: `truth`, or of replies `deception`."""
        return self.config.axes[0]

    @property
    def of_replies(self) -> bool:
        """Whether replies are read."""
        return self.config.read.what == "reply"

    @property
    def classes(self) -> tuple[str, str]:
        """What label 0 and label 1 are called."""
        return CLASSES[self.axis]

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Predictions of the lowest seed on the main axis, of own answers and the main probe, on test and out of distribution, with `wrong`:
        whether the score is on the wrong side of its threshold (never, where there is none)."""
        rows = self.predictions
        rows = rows[
            (rows["axis"] == self.axis) & rows["split"].isin(["test", "ood"]) & (rows["seed"] == rows["seed"].min())
        ]
        rows = rows[rows["probe"].isna() | (rows["probe"] == self.config.evaluate.probe)]
        wrong = ((rows["score"] > rows["threshold"]) != (rows["label"] == 1)) & rows["threshold"].notna()
        return rows.assign(wrong=wrong)

    @cached_property
    def arms(self) -> list[str]:
        there = set(self.results["arm"])
        return [arm for arm in ARMS if arm in there]

    def probe_of(self, arm: str) -> str | None:
        """The probe that the main tables show for an arm."""
        return self.config.evaluate.probe if has_probe(arm) else None

    def result(self, split: str, arm: str, metric: str = "auroc", **keys) -> dict | None:
        """One result record; by default the average over data sets and conditions, all groups, the main axis."""
        datasets = self._datasets.get(split, [])
        wanted = {
            "dataset": "mean" if "mean" in datasets else datasets[0] if len(datasets) else None,
            "condition": "mean",
            "axis": self.axis,
            "filter": "all",
            "probe": self.probe_of(arm),
        } | keys
        return self._indexed.get((split, arm, metric, *(wanted[key] for key in KEYS)))

    @cached_property
    def _datasets(self) -> dict[str, list[str]]:
        return {str(split): list(part["dataset"].unique()) for split, part in self.results.groupby("split")}

    @cached_property
    def _indexed(self) -> dict[tuple, dict]:
        records = self.results.astype(object).where(self.results.notna(), None).to_dict("records")
        return {(r["split"], r["arm"], r["metric"], *(r[key] for key in KEYS)): r for r in reversed(records)}


def _table(path: Path) -> pd.DataFrame | None:
    return read_table(path, "the table", remedy=AGAIN) if path.is_file() else None


def read_run(folder: Path) -> RunResults:
    """Read a run's folder.

    Raises:
        OutputError: a file is missing or unreadable.
    """
    try:

        def load(name: str) -> dict:
            return read_json(folder / name, "the file", remedy=AGAIN)

        config, provenance = read_run_config(folder)
        return RunResults(
            folder=folder,
            config=config,
            provenance=provenance,
            results=pd.DataFrame(read_records(folder / "results.json", "the results", AGAIN)),
            verdicts=read_records(folder / "verdicts.json", "the verdicts", AGAIN),
            controls=read_records(folder / "controls.json", "the controls", AGAIN),
            about=load("about.json"),
            predictions=read_predictions(folder),
            layers=read_table(folder / "layers.parquet", "the scores of all layers", remedy=AGAIN),
            probes=load("probes.json"),
            challenge=load("challenge.json"),
            prompts=read_table(folder / "prompts.parquet", "the prompts", remedy=AGAIN),
            uncertainty=_table(folder / "uncertainty.parquet"),
            projections=_table(folder / "projections.parquet"),
            tokens=_table(folder / "tokens.parquet"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{folder} is not a finished run ({error}); run it again with the same command") from error
