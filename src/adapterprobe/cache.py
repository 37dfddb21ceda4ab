"""A content-addressed cache: entries are written under a temporary name, renamed when whole, and checked
by checksum when read. Two runs may share it at the same time: an entry is made under a file lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from adapterprobe.errors import CacheError, OutputError

MANIFEST = "checksums.json"


def cache_root() -> Path:
    """`ADAPTERPROBE_CACHE`, or `adapterprobe` in the user's cache folder."""
    named = os.environ.get("ADAPTERPROBE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adapterprobe"


def scratch_folder() -> Path:
    """Of the cache: for files that are gone with the process that needs them."""
    return cache_root() / "scratch"


def digest(*parts: object) -> str:
    """A short content hash of JSON-able parts.

    >>> digest({"a": 1}) == digest({"a": 1}), digest("a") == digest("b")
    (True, False)
    """
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing. What is no plain file (`/dev/stdout`, a pipe) is written to, never replaced by one."""
    content = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            file.write(content)
        return
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def reserve(path: Path, size: int) -> None:
    """Take the space of a file that is to be written in place: a full disk is told now. Without that, a write through a memory
    map ends the process on a disk that is full, without a word.

    Raises:
        OSError: there is not so much space.
    """
    with open(path, "wb") as file:
        if size:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)


def checksums(folder: Path, leave_out: Collection[str] = (MANIFEST,)) -> dict[str, list]:
    """Size and checksum of every file below a folder, by its path in it.

    Args:
        leave_out: names directly in the folder that do not count; nor do hidden ones, which are unfinished.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    kept = {name: path for name, path in names.items() if name not in leave_out and not name.startswith(".")}
    return {name: [path.stat().st_size, file_digest(path)] for name, path in kept.items()}


def seal(folder: Path) -> None:
    """Record size and checksum of every file in the folder."""
    write_atomic(folder / MANIFEST, json.dumps(checksums(folder), indent=1))


def changed_files(folder: Path, sums: Mapping[str, Sequence]) -> dict[str, str]:
    """By file, what is not as `checksums` recorded it: missing, of another size, or changed."""
    found = {}
    for name, (size, checksum) in sums.items():
        path = folder / name
        if not path.is_file():
            found[name] = "is missing"
        elif path.stat().st_size != size:
            found[name] = f"has {path.stat().st_size} bytes, {size} were written"
        elif file_digest(path) != checksum:
            found[name] = "has changed since it was written"
    return found


def damaged(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or None: a missing, truncated or changed file is named."""
    try:
        sums = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = changed_files(folder, sums)
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{folder / MANIFEST} is missing or unreadable"
    return next((f"{folder / name} {what}" for name, what in found.items()), None)


def make_lock(path: Path) -> Path:
    """The lock that whoever makes an entry holds alone."""
    return path.with_name(path.name.removesuffix(".part") + ".lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock named after `path` (released by the kernel if the process dies)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(make_lock(path), "a+")  # noqa: SIM115
    except OSError as error:
        raise OutputError(
            f"cannot write to the cache {path.parent} ({error.strerror}); set ADAPTERPROBE_CACHE"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


_held: dict[Path, int] = {}
"""Entries that this process has taken: their files may be opened at any time, so nobody may prune them."""


def use_lock(path: Path) -> Path:
    """The lock that is shared by all who use an entry."""
    return path.with_name(path.name.removesuffix(".part") + ".use")


def _hold(final: Path) -> None:
    if final not in _held:
        _held[final] = os.open(use_lock(final), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(_held[final], fcntl.LOCK_SH)


def let_go(final: Path) -> None:
    """This process does not need an entry any longer."""
    if final in _held:
        os.close(_held.pop(final))


def is_whole(final: Path) -> bool:
    """Whether an entry is there, as it was written."""
    return final.exists() and damaged(final) is None


def entry(kind: str, key: str, make: Callable[[Path], None], notice: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of a cache entry, made by `make(folder)` if it is not there or is damaged.

    `make` is given a work folder that outlives a crash (`KEY.part`), so it can go on where it was; only when
    it returns is the folder sealed and renamed.

    Raises:
        CacheError: the entry is damaged again right after it was made (a failing disk).
    """
    final = cache_root() / kind / key
    with locked(final):
        if final.exists():
            problem = damaged(final)
            if problem is None:
                os.utime(final)
                _hold(final)
                return final
            notice(f"cached file is damaged and will be made again: {problem}")
            shutil.rmtree(final)
        part = final.with_name(final.name + ".part")
        part.mkdir(parents=True, exist_ok=True)
        make(part)
        seal(part)
        os.replace(part, final)
        problem = damaged(final)
        if problem is not None:
            raise CacheError(f"{problem}, although it was written a moment ago; check the disk of {cache_root()}")
        _hold(final)
    return final
