"""The cache: made once, checked when read, safe between runs, listed and pruned."""

import multiprocessing
import os
import time

import pytest

from adapterprobe.cache import entry, let_go
from adapterprobe.cache_entries import cache_entries, prune
from adapterprobe.cli import main
from adapterprobe.errors import CacheError


def fill(folder):
    (folder / "data").write_bytes(b"x" * 5000)


def test_made_once_and_checked(cache):
    made, notices = [], []

    def make(folder):
        made.append(1)
        fill(folder)

    path = entry("states", "a", make)
    assert entry("states", "a", make) == path and len(made) == 1
    for damage in (b"x" * 4999, b"x" * 4999 + b"y"):
        (path / "data").write_bytes(damage)
        entry("states", "a", make, notices.append)
        assert (path / "data").read_bytes() == b"x" * 5000
        assert "will be made again" in notices[-1] and str(path / "data") in notices[-1]
    assert len(made) == 3
    (path / "checksums.json").unlink()
    entry("states", "a", make, notices.append)
    assert "checksums.json is missing" in notices[-1]


def test_a_stopped_making_goes_on_in_its_folder(cache):
    def stop(folder):
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry("states", "a", stop)
    (found,) = cache_entries()
    assert found.state == "unfinished" and found.key == "a"
    seen = []

    def go_on(folder):
        seen.append((folder / "half").read_text())
        fill(folder)

    let_go(entry("states", "a", go_on))
    assert seen == ["1"] and [e.state for e in cache_entries()] == ["whole"]


def _slow(count, started):
    def make(folder):
        with count.get_lock():
            count.value += 1
        started.set()
        time.sleep(0.5)
        fill(folder)

    entry("states", "shared", make)


def test_two_processes_make_an_entry_once(cache):
    spawn = multiprocessing.get_context("fork")
    count, started = spawn.Value("i", 0), spawn.Event()
    workers = [spawn.Process(target=_slow, args=(count, started)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert started.wait(20)
    assert [e.state for e in cache_entries()] == ["in use"]
    assert prune() == [], "what a run is using stays"
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    assert count.value == 1


def test_list_and_prune(cache, capsys):
    for kind, key, days in (("states", "old", 40), ("states", "new", 0), ("adapters", "old", 40)):
        path = entry(kind, key, fill)
        let_go(path)
        past = time.time() - days * 86_400
        for file in [*path.iterdir(), path]:
            os.utime(file, (past, past))
    assert main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    assert "3 entries" in shown and "40.0" in shown and "whole" in shown
    assert main(["cache", "prune", "--older-than", "30", "--kind", "states", "--dry-run"]) == 0
    assert "1 entries" in capsys.readouterr().out and len(cache_entries()) == 3
    assert main(["cache", "prune", "--older-than", "30", "--kind", "states"]) == 0
    assert {(e.kind, e.key) for e in cache_entries()} == {("states", "new"), ("adapters", "old")}
    # An entry that is taken counts as used.
    taken = entry("adapters", "old", fill)
    assert prune(older_than=30) == []
    assert [e.state for e in cache_entries() if e.kind == "adapters"] == ["in use"]
    assert prune(kinds=["adapters"]) == [], "what a process has taken stays while it goes on"
    let_go(taken)
    with pytest.raises(CacheError, match="there are adapters, states"):
        prune(kinds=["models"])
    for argv, match in ((["prune"], "--all"), (["prune", "--older-than", "-1"], "at least 0")):
        assert main(["cache", *argv]) == 2
        assert match in capsys.readouterr().err
    assert main(["cache", "prune", "--all"]) == 0
    assert cache_entries() == []


def test_what_is_no_plain_file_is_never_replaced_by_one(tmp_path):
    """Written to as root, a device would be gone from the machine."""
    import os
    import stat
    import threading

    from adapterprobe.cache import write_atomic

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, "whole")
    reader.join(10)
    assert read == [b"whole"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
