"""What the cache holds, and how to free its space."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterprobe.cache import MANIFEST, cache_root, make_lock, use_lock
from adapterprobe.errors import CacheError


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry of the cache."""

    kind: str
    key: str
    path: Path
    size: int
    """Bytes on disk."""
    used: float
    """When it was last made or taken, in seconds since the epoch."""
    state: str
    """`whole`, `unfinished` (a stopped run goes on from it) or `in use` (a run has it locked now)."""

    @property
    def idle_days(self) -> float:
        return max(0.0, (time.time() - self.used) / 86_400)


def cache_entries(root: Path | None = None) -> list[CacheEntry]:
    """All entries, largest first."""
    root = root or cache_root()
    found = []
    for path in sorted(root.glob("*/*")):
        if path.name.endswith((".lock", ".use")):
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        sizes, times = [], [_stat(path)[1]]
        for file in files:
            size, used = _stat(file)
            sizes.append(size)
            times.append(used)
        unfinished = path.name.endswith(".part") or (path.is_dir() and not (path / MANIFEST).exists())
        state = "in use" if _in_use(path) else "unfinished" if unfinished else "whole"
        found.append(CacheEntry(path.parent.name, path.name.removesuffix(".part"), path, sum(sizes), max(times), state))
    return sorted(found, key=lambda entry: (-entry.size, entry.kind, entry.key))


def _stat(path: Path) -> tuple[int, float]:
    """(bytes, last change); nothing if it has just gone."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0.0
    return stat.st_size, stat.st_mtime


def _in_use(path: Path) -> bool:
    """Whether a process makes the entry at this moment, or has taken it and goes on."""
    for lock in (make_lock(path), use_lock(path)):
        try:
            with open(lock, "r+") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
    return False


def prune(
    kinds: Sequence[str] | None = None,
    older_than: float | None = None,
    unfinished: bool = False,
    dry_run: bool = False,
    root: Path | None = None,
) -> list[CacheEntry]:
    """Remove entries that match everything asked for; those in use are left. Returns what was (or would be) removed.

    Args:
        kinds: only of these kinds; older_than: only those not used for so many days; unfinished: only those.

    Raises:
        CacheError: no such kind (says which there are).
    """
    entries = cache_entries(root)
    there = sorted({entry.kind for entry in entries})
    for kind in kinds or []:
        if kind not in there:
            raise CacheError(f"nothing of kind '{kind}' in the cache; there are {', '.join(there) or 'none'}")
    removed = []
    for entry in entries:
        if kinds and entry.kind not in kinds:
            continue
        if (older_than is not None and entry.idle_days < older_than) or (unfinished and entry.state != "unfinished"):
            continue
        if entry.state == "in use":
            continue
        if not dry_run and not _remove(entry):
            continue
        removed.append(entry)
    return removed


def _remove(entry: CacheEntry) -> bool:
    """Remove an entry under its locks, so that no run takes it meanwhile. False: a run was faster."""
    try:
        with open(make_lock(entry.path), "a+") as handle, open(use_lock(entry.path), "a+") as users:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if entry.path.is_dir():
                # Not whole any longer before its first file goes: a pruning that is stopped leaves nothing that looks finished.
                (entry.path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"cannot remove {entry.path} from the cache ({error.strerror or error}); check who owns it and whether its disk can be "
            "written to (ADAPTERPROBE_CACHE moves the cache)"
        ) from error
    return True
