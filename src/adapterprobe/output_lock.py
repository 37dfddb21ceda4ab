"""One writer an output: whoever comes second is refused in one line, before anything is computed.

The lock is on the folder (or the unfinished file) itself, so nothing is left behind, and the kernel lets go of it when a process
dies. POSIX only, as the cache is; on a file system without locks (some network folders) it does not hold anybody back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from adapterprobe.errors import OutputError
from adapterprobe.small_files import as_path

_held: dict[tuple[int, int], int] = {}
"""By device and inode of a folder, the thread of this process that holds it: a grid holds its folder while it writes the comparison
there."""


def _refuse(out: Path) -> OutputError:
    return OutputError(f"another process is writing to {out}; wait until it ends, or choose another --out")


@contextlib.contextmanager
def output_lock(out: str | Path) -> Iterator[Path]:
    """Make the folder if it is not there, and hold it.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    out = as_path(out, OutputError)
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {out} ({error.strerror}); choose another with --out"
        ) from error
    try:
        status = os.fstat(handle)
        key = (status.st_dev, status.st_ino)
        if _held.get(key) == threading.get_ident():
            yield out
            return
        if not _lock(handle):
            raise _refuse(out)
        _held[key] = threading.get_ident()
        try:
            yield out
        finally:
            _held.pop(key, None)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_file(path: Path, out: Path) -> Iterator[IO[str]]:
    """Open a file for appending text, and hold it. `out` is what it becomes in the end, for the error.

    Raises:
        OutputError: another process holds it, or has just finished with it.
    """
    with open(path, "a", encoding="utf-8") as file:
        if not _lock(file.fileno()):
            raise _refuse(out)
        try:
            same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except FileNotFoundError:
            same = False
        if not same or out.exists():
            raise OutputError(f"another process has just finished {out}; choose another --out")
        yield file


def _lock(handle: int) -> bool:
    """Whether we hold it now; a file system without locks says yes."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
