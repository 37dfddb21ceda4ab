"""A finished run, read from its folder: predictions, metrics, verdicts, the report."""

from __future__ import annotations

import json
import os
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adapterprobe.errors import ConfigError
from adapterprobe.evaluate.schema import main_axis
from adapterprobe.hints import nearest


@dataclass(frozen=True)
class Verdict:
    """What the data say of one hypothesis that was fixed beforehand."""

    hypothesis: str
    verdict: str
    """`supported`, `refuted` or `undecided`."""
    difference: float | None
    """AUROC of the first arm less the second's; None where there was nothing to measure."""
    low: float | None
    high: float | None
    """Limits of its 95 % interval (groups are resampled)."""
    p_adjusted: float
    """Holm's adjusted p over the whole family."""
    n_groups: int
    record: dict
    """All that `verdicts.json` says of it."""

    @property
    def supported(self) -> bool:
        return self.verdict == "supported"

    @property
    def refuted(self) -> bool:
        return self.verdict == "refuted"

    @classmethod
    def from_record(cls, record: dict) -> Verdict:
        """From an entry of `verdicts.json`."""
        named = ("hypothesis", "verdict", "difference", "low", "high", "p_adjusted", "n_groups")
        return cls(**{name: record[name] for name in named}, record=record)

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.verdict}: {self.hypothesis} (nothing to measure)"
        return f"{self.verdict}: {self.hypothesis} ({self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {self.n_groups} groups)"


@dataclass(frozen=True)
class ReportPage(os.PathLike):
    """A report: one HTML file that opens offline."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> bool:
        """Show it in the browser; False where there is none."""
        return webbrowser.open(self.path.resolve().as_uri())


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path

    @property
    def predictions(self) -> pd.DataFrame:
        """Every score: a row per prompt, arm, probe, seed and axis (`predictions.parquet`)."""
        return pd.read_parquet(self.folder / "predictions.parquet")

    @property
    def results(self) -> pd.DataFrame:
        """Every metric with its interval (`results.json`): a row per data set, split, arm, probe, axis, filter, condition and metric."""
        return pd.DataFrame(json.loads((self.folder / "results.json").read_text("utf-8")))

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each hypothesis, in the order of the configuration."""
        return [
            Verdict.from_record(record) for record in json.loads((self.folder / "verdicts.json").read_text("utf-8"))
        ]

    @property
    def report(self) -> ReportPage:
        return ReportPage(self.folder / "report.html")

    def auroc(self, split: str | None = None, axis: str | None = None) -> pd.DataFrame:
        """AUROC of every arm, averaged over conditions and seeds.

        Args:
            split: `test` (held-out groups) or `ood` (data sets never trained on); None: both.
            axis: what is detected: `truth`, `instructed`, `behaviour` or `lie`, of replies `deception`; None: what detectors are made for.

        Returns:
            A row per split, data set (`mean` is their average, where a split has several), arm and probe (None: the model's own
            answer), with `estimate` in [0, 1], its 95 % limits `low` and `high`, `n` prompts and `n_groups`.

        Raises:
            ConfigError: a split or axis that the run does not have.
        """
        table = self.results
        axis = axis or main_axis(table["axis"])
        for name, value in (("split", split), ("axis", axis)):
            there = sorted(table[name].unique())
            if value is not None and value not in there:
                raise ConfigError(f"the run has no {name} '{value}'{nearest(value, there)}; it has {', '.join(there)}")
        kept = (
            (table["metric"] == "auroc")
            & (table["filter"] == "all")
            & (table["condition"] == "mean")
            & (table["axis"] == axis)
        )
        if split is not None:
            kept &= table["split"] == split
        columns = ["split", "dataset", "arm", "probe", "estimate", "low", "high", "n", "n_groups"]
        return table.loc[kept, columns].reset_index(drop=True)
