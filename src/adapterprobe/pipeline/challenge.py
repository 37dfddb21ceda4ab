"""What a run's detectors are held against: controls that must not work, other ways of asking, and what else the adapter changes."""

from __future__ import annotations

from pathlib import Path

from adapterprobe.evaluate.controls import condition_alone
from adapterprobe.pipeline.adapter_controls import adapter_controls
from adapterprobe.pipeline.controls import run_controls
from adapterprobe.pipeline.integrity import integrity_records
from adapterprobe.pipeline.on_record import OnRecord
from adapterprobe.pipeline.outputs import write_json, write_parquet
from adapterprobe.pipeline.shifts import asked_otherwise
from adapterprobe.progress import Timings

FILE = "challenge.json"


def write_challenge(run: OnRecord, out: Path, timings: Timings) -> None:
    """Write `controls.json`, `controls.parquet`, `shifts.parquet` and `challenge.json` (ways of asking, integrity)."""
    settings = run.config.evaluate
    with timings.stage("controls", told=True):
        controls = run_controls(run.config, run.encoded, run.fits) + condition_alone(run.frame, settings.probe)
    if settings.adapter_controls:
        with timings.stage("adapters that must not work", told=True):
            records, scores = adapter_controls(run)
            controls += records
            write_parquet(out, "controls.parquet", scores)
    write_json(out, "controls.json", controls)
    content: dict = {"shifts": [], "not_asked": []}
    if settings.shifts:
        with timings.stage("asked otherwise", told=True):
            content["shifts"], content["not_asked"], scores = asked_otherwise(run)
            write_parquet(out, "shifts.parquet", scores)
    with timings.stage("what the adapter changes"):
        content["integrity"] = integrity_records(run.encoded, run.base, run.adapted)
    write_json(out, FILE, content)
