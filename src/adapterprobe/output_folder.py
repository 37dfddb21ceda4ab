"""The output folder of a run: claimed before work starts, written atomically, never another run's."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from adapterprobe.cache import changed_files, checksums, damaged, file_digest, write_atomic
from adapterprobe.config import ReadConfig, RunConfig
from adapterprobe.config_files import to_yaml
from adapterprobe.data.references import data_files, is_registered
from adapterprobe.data.registered import registered_dataset
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.schema import COLUMNS
from adapterprobe.evaluate.scores import refuse_non_finite_scores
from adapterprobe.small_files import read_json, read_table

MARK = "run.json"
DATA_FOLDER = "data"
"""Where data that were in memory are written, before whatever comes of them."""
AGAIN = "run it again with the same command"
LIBRARIES = ("adapterprobe", "torch", "transformers", "peft", "scikit-learn", "numpy", "scipy", "pandas")


def enter_run_folder(out: Path, config: RunConfig) -> dict | None:
    """Make or enter the folder; whoever calls holds it (see `output_lock`). Returns what a finished run of the same configuration
    left, else None.

    Raises:
        OutputError: not writable, not empty, or a run with another configuration.
    """
    _writable(out)
    mark = out / MARK
    wanted = config.model_dump(mode="json")
    files = files_of(config)
    if mark.is_file():
        try:
            left = read_json(mark, "the record of the run")
        except OutputError:
            left = {}
        # A run that failed before it wrote anything (a bad option, no model) holds nobody's work.
        begun = any(path.name not in (MARK, "config.yaml", DATA_FOLDER) for path in out.iterdir())
        if left.get("files", {}) != files and begun:
            raise OutputError(
                f"{out} holds another run (a file that it names has changed since); choose another --out, or remove it"
            )
        recorded = in_todays_names(left.get("config"))
        if recorded != wanted and begun:
            changed = _changed(recorded if isinstance(recorded, dict) else {}, wanted)
            raise OutputError(
                f"{out} holds another run (it differs in {', '.join(changed) or 'its records'}); choose another --out, or remove it"
            )
        if left.get("finished") and begun:
            return left
    elif any(path.name != DATA_FOLDER for path in out.iterdir()):
        raise OutputError(f"{out} is not empty and not a run of ours; choose another --out")
    write_atomic(mark, json.dumps({"config": wanted, "files": files, "finished": False}))
    return None


def in_todays_names(recorded: object) -> object:
    """A recorded configuration as it would be written now."""
    try:
        return RunConfig.model_validate(recorded).model_dump(mode="json")
    except ValueError:
        return recorded


def finish(out: Path, config: RunConfig, **about: object) -> None:
    """Write the mark that makes a run finished: with checksums of all its files, by which `check_run` tells what has changed."""
    content = {"config": config.model_dump(mode="json"), "files": files_of(config), "finished": True, **about}
    write_json(out, MARK, content | {"checksums": run_checksums(out)})


def run_checksums(out: Path) -> dict[str, list]:
    """Of all files of a run but its mark and its learning curves."""
    return {name: sums for name, sums in checksums(out, (MARK,)).items() if not name.startswith("curves/")}


def sealed_mark(folder: Path) -> dict:
    """The mark of a finished run.

    Raises:
        OutputError: the folder is not a finished run.
    """
    remedy = f"make one with `adapterprobe run --out {folder}`"
    if not (folder / MARK).is_file():
        raise OutputError(f"{folder} is not a finished run: {MARK} is missing; {remedy}")
    mark = read_json(folder / MARK, "the record of the run")
    if not mark.get("finished"):
        raise OutputError(f"{folder} is not a finished run; the command that began it goes on with it")
    return mark


def changed_since(folder: Path, mark: dict, names: Sequence[str] | None = None) -> dict[str, str]:
    """By file, what has changed in a run's folder since it was finished. Runs of versions that kept no checksums say nothing.

    Args:
        names: files, or folders that end with a slash, that are looked at; None: all but the pages and figures of the report.
    """
    sums = mark.get("checksums")
    if not isinstance(sums, dict):
        return {}
    kept = {
        name: entry
        for name, entry in sums.items()
        if (any(name == n or (n.endswith("/") and name.startswith(n)) for n in names) if names else not _drawn(name))
    }
    try:
        return changed_files(folder, kept)
    except (TypeError, ValueError) as error:
        raise OutputError(f"the record of the run {folder / MARK} is damaged ({error}); run it again") from error


def _drawn(name: str) -> bool:
    return name.startswith(("report.", "figures/"))


def check_run(folder: Path, names: Sequence[str] | None = None) -> dict:
    """The mark of a finished run whose files are as they were written.

    Raises:
        OutputError: it is not finished, or a file that is to be read (`names`, see `changed_since`) has changed.
    """
    mark = sealed_mark(folder)
    changed = changed_since(folder, mark, names)
    if changed:
        said = "; ".join(f"{name} {what}" for name, what in list(changed.items())[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise OutputError(
            f"{folder} is not as the run left it: {said}{more}; take the files from a copy, or run it again (after an edit of your "
            f"own, `adapterprobe report {folder} --accept-changes` computes the results anew and records the files as they are)"
        )
    return mark


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {out} ({error.strerror}); choose another with --out"
        ) from error


def claim_folder(out: Path, name: str, described: dict, what: str) -> bool:
    """Make or enter the folder of an extraction, a screening ... (whoever calls holds it, see `output_lock`): the mark `name` says whose it is, and when it is
    finished the folder is sealed.

    Returns whether the very one that is described is there already, whole.

    Raises:
        OutputError: not writable, or the folder holds something else.
    """
    _writable(out)
    mark = out / name
    wanted = json.loads(json.dumps(described, default=str))
    # Nothing but the mark and pieces of unfinished files: nobody's work.
    begun = any(path.name not in (name, DATA_FOLDER) and not path.name.endswith(".part") for path in out.iterdir())
    if mark.is_file():
        left = read_json(mark, f"the record of the {what}", remedy="choose another --out, or remove the folder")
        if left == wanted and begun:
            return damaged(out) is None
        if begun:
            raise OutputError(f"{out} holds another {what}; choose another --out, or remove it")
    elif begun:
        raise OutputError(f"{out} is not empty and holds no {what} of ours; choose another --out")
    write_atomic(mark, json.dumps(wanted, indent=1))
    return False


def named_files(*values: object, data: Sequence[tuple[str, ReadConfig]] = ()) -> dict[str, str]:
    """Content hashes of files that a configuration names (a prompt format, system prompts, data sets): they decide the
    outcome too."""
    files = [Path(v) for v in values if isinstance(v, str) and v.endswith((".jinja", ".yaml", ".yml"))]
    files += [file for ref, read in data for file in data_files(ref, read)]
    registered = {f"data set {ref}": registered_dataset(ref).content_digest for ref, _ in data if is_registered(ref)}
    return {str(file): file_digest(file) for file in files if file.is_file()} | registered


def files_of(config: RunConfig) -> dict[str, str]:
    """Those of a run's configuration."""
    data = [(ref, config.reading(ref)) for ref in (*config.data.train, *config.data.ood)]
    text = config.adapter.neutral_text
    mine = {text: file_digest(Path(text))} if text and Path(text).is_file() else {}
    return named_files(config.elicit.format, config.elicit.system, data=data) | mine


def _changed(old: dict, new: dict, prefix: str = "") -> list[str]:
    names = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _changed(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(prefix + key)
    return names


def provenance(model: dict, hashes: dict) -> dict:
    """Versions and content hashes that results depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions | {"python": platform.python_version()},
        "machine": {"processor": platform.machine(), "system": platform.system()},
        "model": model,
        "hashes": hashes,
    }


def read_predictions(folder: Path) -> pd.DataFrame:
    """`predictions.parquet` of a run.

    Raises:
        OutputError: it is missing or damaged, or holds a score that is not finite.
    """
    frame = read_table(folder / "predictions.parquet", "the predictions", tuple(COLUMNS), AGAIN)
    refuse_non_finite_scores(frame)
    return frame


def write_config(out: Path, config: RunConfig, about: dict) -> None:
    write_atomic(out / "config.yaml", to_yaml(config, about))


def write_parquet(folder: Path, name: str, frame: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    part = folder / f".{name}.part"
    frame.to_parquet(part, index=False, compression="zstd")
    part.replace(folder / name)


def write_json(out: Path, name: str, content) -> None:
    write_atomic(out / name, json.dumps(content, indent=1, allow_nan=False, default=str))
