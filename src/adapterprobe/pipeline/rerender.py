"""The report of a finished run, rendered anew."""

from __future__ import annotations

from pathlib import Path

from adapterprobe.config_files import read_run_config
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.output_folder import MARK, check_run, read_predictions, run_checksums, sealed_mark, write_json
from adapterprobe.output_lock import output_lock
from adapterprobe.small_files import as_path

NEEDED = (
    "config.yaml",
    "predictions.parquet",
    "about.json",
    "controls.json",
    "prompts.parquet",
    "challenge.json",
    "probes.json",
)


def rewrite_report(folder: str | Path, accept_changes: bool = False) -> Path:
    """Render the report of a finished run anew, with the results computed again from its predictions.

    Args:
        accept_changes: take the files as they are now, and record them so; else files that have changed since the run was
            finished are refused by name.

    Raises:
        OutputError: the folder is not a finished run, or not as the run left it.
    """
    folder = as_path(folder, OutputError)
    if not folder.is_dir():
        raise OutputError(
            f"{folder} is not a finished run: there is no such folder; make one with `adapterprobe run --out {folder}`"
        )
    with output_lock(folder):
        mark = sealed_mark(folder) if accept_changes else check_run(folder)
        lacking = [name for name in NEEDED if not (folder / name).is_file()]
        if lacking:
            raise OutputError(
                f"{folder} is not a finished run: {lacking[0]} is missing; make one with `adapterprobe run --out {folder}`"
            )
        config, _ = read_run_config(folder)
        settings = config.evaluate
        frame = read_predictions(folder)
        hypotheses = [parse_hypothesis(text) for text in settings.hypotheses]
        results, verdicts = evaluate(
            frame, hypotheses, settings.probe, settings.resamples, settings.margin, config.data.min_groups
        )
        write_json(folder, "results.json", results)
        write_json(folder, "verdicts.json", verdicts)
        from adapterprobe.report import write_report

        try:
            write_report(folder)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if "checksums" in mark and not accept_changes:
                raise
            # Files that nobody vouches for may say anything.
            raise OutputError(
                f"the files in {folder} do not make a report ({type(error).__name__}: {str(error)[:120]}); run it again"
            ) from error
        if "checksums" in mark or accept_changes:
            write_json(folder, MARK, mark | {"checksums": run_checksums(folder)})
    return folder / "report.html"
