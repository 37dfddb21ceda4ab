"""`--data NAME|FILE|hub:NAME`: what a reference names, and where that is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adapterprobe.config import ReadConfig
from adapterprobe.data.hub import hub_table
from adapterprobe.data.readers import FILES
from adapterprobe.data.registered import registered_names
from adapterprobe.data.relations import is_relation, relation_names
from adapterprobe.errors import DataError
from adapterprobe.hints import nearest
from adapterprobe.small_files import as_path
from adapterprobe.terminal import shortened

MOST_ENTRIES = 100_000
"""Files and folders of a folder that is named as a data set: more are a disk rather than a data set."""


def all_names() -> list[str]:
    """Every data set that goes by a name: built in, in our table of the hub, or registered."""
    return [*relation_names(), *hub_table(), *registered_names()]


def is_registered(ref: str) -> bool:
    """Whether a reference is the name of a data set of one's own (see `register_dataset`)."""
    return not is_relation(ref) and ref not in hub_table() and not _looks_like_a_file(ref) and ref in registered_names()


def _looks_like_a_file(ref: str) -> bool:
    return ref.endswith(FILES) or os.sep in ref or ref.startswith((".", "~", "hub:"))


def _is_path(ref: str) -> bool:
    return _looks_like_a_file(ref) or (Path(ref).exists() and not is_registered(ref))


def data_path(ref: str) -> Path | None:
    """The file or folder that a reference names, if it names one."""
    if is_relation(ref) or ref in hub_table() or ref.startswith("hub:"):
        return None
    try:
        if not _is_path(ref):
            return None
        return as_path(ref, DataError)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{shortened(ref)} is no path ({str(error)[:80]})") from error


def _repository(ref: str) -> str | None:
    """The OWNER/NAME that a reference stands for, if it is of the hub."""
    name = ref.removeprefix("hub:")
    if name in hub_table() and not is_relation(ref):
        return hub_table()[name].hub
    return name if ref.startswith("hub:") else None


def data_files(ref: str, read: ReadConfig) -> list[Path]:
    """The local files that a data set is read from; none for what is built in or comes from the hub itself.

    Raises:
        DataError: no such file or folder.
    """
    path = data_path(ref)
    if path is not None and not path.exists():
        raise DataError(
            f"no file or folder {ref}{nearest(ref, all_names())}; check the path, or see `adapterprobe data list`"
        )
    repository = _repository(ref)
    if path is None and repository is not None and read.hub_folder is not None:
        path = as_path(read.hub_folder, DataError) / repository
    if path is None:
        return []
    if path.is_file():
        return [path]
    found: list[Path] = []
    count = 0
    for folder, below, names in os.walk(path):
        count += len(below) + len(names)
        if count > MOST_ENTRIES:
            raise DataError(
                f"{ref} holds more than {MOST_ENTRIES:,} files and folders; name the folder of one data set"
            )
        found += [Path(folder, name) for name in names if os.path.isfile(os.path.join(folder, name))]
    return sorted(found)


def refuse_unused(refs: Sequence[str], read: ReadConfig) -> None:
    """Options of reading that say nothing to any of the data sets are refused, rather than ignored.

    Raises:
        DataError: the option, and what it is for.
    """
    own = [ref for ref in refs if data_path(ref) is not None or (ref.startswith("hub:") and ref.count("/"))]
    several = [ref for ref in refs if _repository(ref) or ((path := data_path(ref)) is not None and path.is_dir())]
    for name, given, fits, what in (
        ("--column", read.columns, own, "files and hub:OWNER/NAME"),
        ("--group", read.group, own, "files and hub:OWNER/NAME"),
        ("--split", read.split, several, "folders and data sets of the hub"),
        ("--config-name", read.config, [ref for ref in several if ref in own], "folders and hub:OWNER/NAME"),
    ):
        if given and not fits:
            raise DataError(f"{name} says nothing to {', '.join(refs)}; it is for {what}")


def check_dataset_names(names: Sequence[str]) -> None:
    """Raises `DataError` where two data sets would have one name in the results."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"two data sets are called '{twice[0]}'; results could not tell them apart: rename one of the files"
        )
