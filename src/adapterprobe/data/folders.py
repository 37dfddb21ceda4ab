"""Folders as data: those that `datasets` saved, and those laid out like a repository of the hub. None leads out of itself."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from adapterprobe.data.readers import first_line, open_file
from adapterprobe.data.row_source import Source, checked_columns
from adapterprobe.errors import DataError
from adapterprobe.safe_yaml import parse_yaml
from adapterprobe.small_files import parse_json, read_json, read_text
from adapterprobe.terminal import shortened


def open_folder(path: Path, config: str | None, split: str | None) -> Source:
    """Open a folder that `datasets` saved (`save_to_disk`), or one laid out like a repository of the hub.

    Raises:
        DataError: it is neither, or has several splits and none was chosen.
    """
    path = path.resolve()
    _stay_inside(path)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        _saved_inside(path)
        try:
            return from_datasets(path.name, datasets.load_from_disk(str(path)), split)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"cannot read the saved data set {path} ({first_line(error)})") from error
    return open_repository(path.name, str(path), config, split, None)


def open_repository(name: str, where: str, config: str | None, split: str | None, revision: str | None) -> Source:
    """Open a data set of the hub, or a local folder with the same layout.

    Args:
        where: hub id, or the folder.
        config: which of its configurations.

    Raises:
        DataError: it cannot be found or loaded; what was tried, and what to do.
    """
    import datasets

    local = Path(where).is_dir()
    if local:
        # A bare name such as `csv` would be taken for a reader that `datasets` has built in, which looks in the folder we stand in.
        where = str(Path(where).resolve())
        _stay_inside(Path(where))
    datasets.disable_progress_bars()
    try:
        if local:
            # Which files it would read, before it reads any.
            builder = datasets.load_dataset_builder(where, name=config)
            files = _files_inside(Path(where), builder.config.data_files)
            if (source := _by_ourselves(name, builder, files, split)) is not None:
                return source
        # A local folder is read as it is; what comes from the hub is kept by `datasets`, so it comes once.
        loaded = datasets.load_dataset(where, name=config, split=split, revision=revision, streaming=local)
        return from_datasets(name, loaded, split)
    except DataError:
        raise
    except Exception as error:
        tried = "a local folder" if local else "a data set of the hub"
        remedy = (
            "check that the folder holds data files and the right split"
            if local
            else "check the name, the split and the connection, or download it and name its folder with --hub-folder"
        )
        raise DataError(
            f"cannot load '{name}': tried {where} as {tried}, got {type(error).__name__}: {first_line(error)}; {remedy}"
        ) from error


def _files_inside(folder: Path, data_files: Mapping[str, Sequence] | None) -> dict[str, list[Path]]:
    """By split, the files that `datasets` would read of a local folder.

    Raises:
        DataError: one lies outside the folder, or at an address.
    """
    found: dict[str, list[Path]] = {}
    for split, files in (data_files or {}).items():
        for given in map(str, files):
            path = Path(given)
            if "://" in given or not (_inside(folder, path) or _inside(folder.parent.parent / "blobs", path)):
                raise DataError(
                    f"{folder}: its card names the data file {shortened(given)}, which lies outside the folder"
                )
            found.setdefault(str(split), []).append(Path(given))
    return found


PLAIN = (".csv", ".tsv", ".jsonl", ".parquet")


def _by_ourselves(name: str, builder, files: Mapping[str, list[Path]], split: str | None) -> Source | None:
    """The rows of plain files by our own readers, which refuse what others read in silence (two columns of one name, quotes that
    swallow lines); None where the folder says something of its files that only `datasets` understands."""
    every = [path for paths in files.values() for path in paths]
    for path in every:
        if path.name.endswith((".csv.gz", ".tsv.gz")):
            with gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
                head = next((line for line in file if line.strip()), "")
            checked_columns(path.name, next(csv.reader([head], delimiter="\t" if ".tsv" in path.name else ","), []))
    settings = builder.config
    separators = {getattr(settings, "sep", ","), getattr(settings, "delimiter", None) or ","}
    told = [getattr(settings, key, None) for key in ("column_names", "names", "skiprows", "field", "quotechar")]
    plain = separators <= {",", "\t"} and not any(value not in (None, '"') for value in told)
    if not every or builder.info.features is not None or not plain or any(path.suffix not in PLAIN for path in every):
        return None
    parts = [open_file(path) for path in _chosen_split(name, files, split)]
    columns = list(dict.fromkeys(column for part in parts for column in part.columns))
    if len(parts) == 1:
        return Source(name, columns, parts[0].rows, parts[0].total, parts[0].classes)
    # Lines of several files cannot be told apart: rows are counted through.
    rows = ((number, row) for number, (_, row) in enumerate((r for part in parts for r in part.rows), 1))
    return Source(name, columns, rows, None, parts[0].classes)


def _saved_inside(folder: Path) -> None:
    """Whether a folder that `datasets` saved names files and splits of its own alone.

    Raises:
        DataError: names what leads out of it.
    """
    for path in [*folder.rglob("state.json"), *folder.glob("dataset_dict.json")]:
        content = read_json(path, "the record of the saved data set", error=DataError)
        named = (
            [content.get("splits")]
            if path.name == "dataset_dict.json"
            else [content.get(k) for k in ("_data_files", "_indices_data_files")]
        )
        for given in (entry for listed in named if isinstance(listed, list) for entry in listed):
            where = given.get("filename") if isinstance(given, dict) else given
            if not isinstance(where, str) or not _inside(folder, path.parent / where):
                raise DataError(
                    f"{folder}: {path.name} names {shortened(where)}, which lies outside the folder; only files inside it are read"
                )


CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")


def _stay_inside(folder: Path) -> None:
    """Whether all that a folder names lies in it: the list of data files in its card, and links. (What `datasets` makes of it is
    looked at again before anything is read.)

    Raises:
        DataError: names what leads out of the folder, or to an address.
    """
    # A snapshot of the hub's cache is links into the `blobs` beside it.
    blobs = folder.parent.parent / "blobs"
    for path in folder.rglob("*"):
        if path.is_symlink() and path.exists() and not _inside(folder, path) and not _inside(blobs, path):
            raise DataError(f"{folder}: {path.name} is a link that leads out of the folder; copy what it leads to")
    for name in CARDS:
        if (folder / name).is_file():
            for given in _named_files(folder / name):
                if "://" in given or not _inside(folder, folder / given.split("*", 1)[0]):
                    raise DataError(
                        f"{folder}: {name} names the data file {shortened(given)}, which lies outside the folder; only files inside it are read"
                    )


def _inside(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def _named_files(path: Path) -> Iterator[str]:
    """All that a folder's card or record names as files or folders of data."""
    text = read_text(path, "the card of the data set", error=DataError)
    try:
        if path.suffix == ".json":
            content = parse_json(text)
        elif path.suffix == ".yaml":
            content = parse_yaml(text)
        else:
            # The hub's own pattern, line ends of any kind.
            found = REGEX_YAML_BLOCK.search(text)
            content = parse_yaml(found.group(2)) if found else None
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); mend it, or take it out of the folder") from error
    yield from _below(content, wanted=False)


def _below(content: object, wanted: bool) -> Iterator[str]:
    if isinstance(content, str):
        if wanted:
            yield content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            # `data_files` maps splits to paths, or lists entries of split and path.
            yield from _below(value, key in ("data_files", "data_dir", "path") or (wanted and key != "split"))
    elif isinstance(content, (list, tuple)):
        for part in content:
            yield from _below(part, wanted)


def _chosen_split(name: str, splits: Mapping[str, Any], split: str | None) -> Any:
    """What stands under the split that was chosen, or under the only one.

    Raises:
        DataError: several splits, and none or an unknown one was chosen.
    """
    if split is None and len(splits) > 1:
        raise DataError(f"{name} has the splits {', '.join(splits)}; choose one with --split")
    if split is not None and split not in splits:
        raise DataError(f"{name} has no split '{split}'; it has {', '.join(splits)}")
    return splits[split or next(iter(splits))]


def from_datasets(name: str, loaded, split: str | None) -> Source:
    """Rows of what `datasets` has loaded.

    Raises:
        DataError: several splits, and none or an unknown one was chosen.
    """
    if isinstance(loaded, dict):
        loaded = _chosen_split(name, loaded, split)
    if loaded.features is None:
        # A stream of a kind of file that does not say its columns beforehand.
        loaded = loaded._resolve_features()
    classes = {column: feature.names for column, feature in loaded.features.items() if hasattr(feature, "int2str")}
    total = getattr(loaded, "num_rows", None)
    return Source(name, checked_columns(name, loaded.features), enumerate(loaded, 1), total, classes)
