"""Finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapterprobe.errors import OutputError
from adapterprobe.output_folder import MARK, check_run
from adapterprobe.output_lock import output_lock
from adapterprobe.small_files import as_path


def compare(folders: Sequence[str | Path], out: str | Path, failed: Sequence[dict] = ()) -> Path:
    """Write a comparison of finished runs into a folder; the first is what the others are held against.

    Args:
        failed: runs that there should be (`run`, `reason`), to be told of.

    Raises:
        OutputError: fewer than two runs, a folder that is not a finished run, or one that cannot be written to.
    """
    from adapterprobe.report.compare import write_comparison
    from adapterprobe.report.run_reader import read_run

    paths = [as_path(folder, OutputError) for folder in folders]
    if len({path.resolve() for path in paths}) < 2:
        raise OutputError(f"at least two different runs are compared, got {[str(path) for path in paths]}")
    sealed = all(["checksums" in check_run(path) for path in paths])
    out = as_path(out, OutputError)
    if (out / MARK).exists():
        raise OutputError(f"{out} holds a run; choose another --out for the comparison")
    with output_lock(out):
        runs = {name: read_run(path) for name, path in zip(_names(paths), paths, strict=True)}
        try:
            write_comparison(runs, out, failed)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if sealed:
                raise
            # Files that nobody vouches for may say anything.
            raise OutputError(
                f"the files of these runs do not make a comparison ({type(error).__name__}: {str(error)[:120]}); run them again"
            ) from error
    return out / "report.html"


def _names(paths: list[Path]) -> list[str]:
    """The folders' names, with as many parents as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
