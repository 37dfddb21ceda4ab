"""The report of a finished run, rendered anew."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from adapterprobe.config_files import read_config
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.outcome import evaluate
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.pipeline.challenge import FILE as CHALLENGE
from adapterprobe.pipeline.evidence import FILE
from adapterprobe.pipeline.outputs import MARK, write_json


def rewrite_report(folder: str | Path) -> Path:
    """Render the report of a finished run anew, with the results computed again from its predictions.

    Raises:
        OutputError: the folder is not a finished run.
    """
    folder = Path(folder)
    needed = [
        name
        for name in (
            MARK,
            "config.yaml",
            "predictions.parquet",
            "about.json",
            "controls.json",
            "prompts.parquet",
            CHALLENGE,
            FILE,
        )
        if not (folder / name).is_file()
    ]
    if needed:
        raise OutputError(
            f"{folder} is not a finished run: {needed[0]} is missing; make one with `adapterprobe run --out {folder}`"
        )
    config = read_config(folder / "config.yaml")
    settings = config.evaluate
    frame = pd.read_parquet(folder / "predictions.parquet")
    hypotheses = [parse_hypothesis(text) for text in settings.hypotheses]
    results, verdicts = evaluate(frame, hypotheses, settings.probe, settings.resamples, settings.margin)
    write_json(folder, "results.json", results)
    write_json(folder, "verdicts.json", verdicts)
    from adapterprobe.report import write_report

    write_report(folder)
    return folder / "report.html"
