"""Questions asked of a fitted run, one file each. To add one: write a function from a `FittedRun` to `Findings` in a file of its own,
and name it in `ANALYSES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adapterprobe.analyses.adapter_controls import adapter_controls
from adapterprobe.analyses.adapter_effects import adapter_effects
from adapterprobe.analyses.answer_prediction import answer_prediction
from adapterprobe.analyses.directions import directions
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.guarantees import guarantees
from adapterprobe.analyses.learning_curves import learning_curves
from adapterprobe.analyses.polarity import polarity
from adapterprobe.analyses.poolings import poolings
from adapterprobe.analyses.probe_controls import probe_controls
from adapterprobe.analyses.reply_tokens import reply_tokens
from adapterprobe.analyses.rewordings import rewordings
from adapterprobe.analyses.steering import steering
from adapterprobe.analyses.swapped_replies import swapped_replies
from adapterprobe.analyses.thresholds import thresholds
from adapterprobe.analyses.topics import topics
from adapterprobe.analyses.uncertainty import uncertainty
from adapterprobe.output_folder import write_json, write_parquet
from adapterprobe.progress import Timings

__all__ = ["ANALYSES", "Analysis", "Findings", "FittedRun", "write_analyses"]


@dataclass(frozen=True)
class Analysis:
    """A question asked of a fitted run."""

    stage: str
    """What a terminal says while it is asked, and the report's table of times."""
    ask: Callable[[FittedRun], Findings]


ANALYSES = [
    Analysis("controls", probe_controls),
    Analysis("adapters that must not work", adapter_controls),
    Analysis("asked otherwise", rewordings),
    Analysis("replies swapped", swapped_replies),
    Analysis("poolings", poolings),
    Analysis("answers and claims", polarity),
    Analysis("one topic left out", topics),
    Analysis("replies token by token", reply_tokens),
    Analysis("what the adapter changes", adapter_effects),
    Analysis("calibration and guarantees", guarantees),
    Analysis("thresholds", thresholds),
    Analysis("what the model will say", answer_prediction),
    Analysis("uncertainty", uncertainty),
    Analysis("learning curves", learning_curves),
    Analysis("directions", directions),
    Analysis("steering", steering),
]


def write_analyses(run: FittedRun, out: Path, timings: Timings) -> None:
    """Ask everything of a run, and write what was found into its folder: tables as they come, each JSON file when it is whole."""
    # What every finished run has, whatever was asked of it.
    content: dict[str, Any] = {"controls.json": [], "challenge.json": {}, "probes.json": {}}
    for analysis in ANALYSES:
        with timings.stage(analysis.stage, told=True):
            found = analysis.ask(run)
        for name, value in found.items():
            if isinstance(value, pd.DataFrame):
                write_parquet(out, name, value)
            elif isinstance(value, list):
                content[name] = [*content[name], *value]
            else:
                content[name] = content[name] | value
    for name, value in content.items():
        write_json(out, name, value)
