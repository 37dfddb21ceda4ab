"""Files that people write by hand or that a folder's makers left: read whole, bounded in size, never a pipe or a device.

What cannot be read gets one error that says which file, what is wrong with it, and what to do.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterprobe.errors import AdapterProbeError, ConfigError, OutputError
from adapterprobe.terminal import shortened

if TYPE_CHECKING:
    import pandas as pd

TEXT_LIMIT = 1 << 20
"""Bytes of a file that people write by hand: a configuration, a prompt format, system prompts."""
JSON_LIMIT = 1 << 28
"""Bytes of a JSON file in a folder that a program left."""


def as_path(text: str | Path, error: type[AdapterProbeError] = ConfigError) -> Path:
    """A path as people write it, `~` and `~user` written out.

    Raises:
        AdapterProbeError (of the type given): it can be no path: a NUL inside, no such user, not UTF-8, or a name that is too long.
    """
    try:
        str(text).encode("utf-8")
        if "\x00" in str(text):
            raise ValueError("it holds a NUL character")
        path = Path(text).expanduser()
        path.exists()  # raises what using it would raise, such as a name that is too long
    except UnicodeEncodeError:
        raise error(f"the path {shortened(str(text))} is not UTF-8; rename the file") from None
    except PermissionError:
        return path
    except (OSError, RuntimeError, ValueError) as reason:
        said = getattr(reason, "strerror", None) or reason
        raise error(f"{shortened(str(text))} is no path ({said}); check how it is written") from None
    return path


def read_text(
    path: str | Path, what: str, limit: int = TEXT_LIMIT, error: type[AdapterProbeError] = ConfigError, remedy: str = ""
) -> str:
    """A whole file as text.

    Args:
        what: what the file is, for the error.
        limit: bytes beyond which it is refused.
        remedy: what to do about it, for the error.

    Raises:
        AdapterProbeError (of the type given): there is no such file, it is a pipe, a device or a folder, too large, or not UTF-8.
    """
    path = as_path(path, error)
    tail = f"; {remedy}" if remedy else ""
    try:
        # Never waits, as opening a pipe would.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as reason:
        raise error(f"cannot read {what} {path} ({reason.strerror}){tail}") from None
    with open(handle, "rb") as file:
        kind = os.fstat(handle)
        if not stat.S_ISREG(kind.st_mode):
            name = "a folder" if stat.S_ISDIR(kind.st_mode) else "a pipe or a device"
            raise error(f"cannot read {what} {path}: it is {name}, expected a plain file{tail}")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise error(f"cannot read {what} {path}: it has {kind.st_size} bytes, at most {limit} are read{tail}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"cannot read {what} {path}: it is not UTF-8 ({reason}){tail}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two equal keys the last would win in silence.

    Raises:
        ValueError: a key stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shortened(twice)} stands there twice")
    return found


def parse_json(text: str) -> Any:
    """JSON with unique keys.

    Raises:
        ValueError: it is none, in words (also where it nests too deeply, or holds a number too long to be one).
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_json(
    path: str | Path,
    what: str,
    expected: type = dict,
    error: type[AdapterProbeError] = OutputError,
    remedy: str = "",
    limit: int = JSON_LIMIT,
) -> Any:
    """A JSON file whose outermost value is of a type.

    Raises:
        AdapterProbeError (of the type given): see `read_text`; or it is no JSON, or of another type.
    """
    text = read_text(path, what, limit, error, remedy)
    tail = f"; {remedy}" if remedy else ""
    try:
        content = parse_json(text)
    except ValueError as reason:
        raise error(f"{what} {path} is damaged: no JSON ({str(reason)[:120]}){tail}") from None
    if not isinstance(content, expected):
        raise error(
            f"{what} {path} is damaged: expected {expected.__name__}, got {type(content).__name__} {shortened(content)}{tail}"
        )
    return content


def read_records(path: str | Path, what: str, remedy: str = "") -> list[dict[str, Any]]:
    """A JSON file that is a list of objects.

    Raises:
        OutputError: see `read_json`; or an entry that is no object.
    """
    content = read_json(path, what, list, OutputError, remedy)
    strange = [entry for entry in content if not isinstance(entry, dict)]
    if strange:
        raise OutputError(
            f"{what} {path} is damaged: expected objects, got {shortened(strange[0])}{f'; {remedy}' if remedy else ''}"
        )
    return content


def read_table(path: str | Path, what: str, columns: tuple[str, ...] = (), remedy: str = "") -> pd.DataFrame:
    """A Parquet file of a folder that we wrote.

    Raises:
        OutputError: it is missing, damaged, or lacks columns.
    """
    import pandas as pd
    import pyarrow as pa

    tail = f"; {remedy}" if remedy else ""
    path = as_path(path, OutputError)
    if not path.is_file():
        raise OutputError(f"{what} {path} is missing{tail}")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as reason:
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise OutputError(f"{what} {path} is damaged ({first[:160]}){tail}") from None
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise OutputError(f"{what} {path} is damaged: it lacks the columns {', '.join(lacking)}{tail}")
    return frame
