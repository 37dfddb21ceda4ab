"""Thousands of broken inputs through the command line, in this process: nothing but an exit status and one line, soon, in little memory."""

import os
import random
import resource
import shutil
import time

import pytest

from adapterprobe.cli import main
from fuzzing import Fuzz

INPUTS = int(os.environ.get("ADAPTERPROBE_FUZZ_INPUTS", "5000"))
LONGEST = 20.0
MOST_MEMORY = 2 << 30
"""Bytes that all of it may add to this process."""


def check(argv, capsys) -> tuple[int, float]:
    began = time.monotonic()
    try:
        status = main(argv)
    except SystemExit as stop:
        status = stop.code
    took = time.monotonic() - began
    shown = capsys.readouterr()
    assert status in (0, 1, 2, 130), (argv, status)
    lines = [line for line in shown.err.splitlines() if line.startswith("adapterprobe:")]
    assert len(lines) == (status == 2), (argv, shown.err[-500:])
    assert "Traceback" not in shown.err, (argv, shown.err[-2000:])
    assert not any(sign in shown.err + shown.out for sign in "\x1b\u202e\x00"), argv
    assert took < LONGEST, (argv, took)
    return status, took


def storm(tmp_path, tiny_folder, finished_run, capsys, monkeypatch, count: int, seed: int) -> dict[int, int]:
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    monkeypatch.chdir(tmp_path)
    fuzz = Fuzz(tmp_path, tiny_folder, finished_run / "out")
    rng = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    statuses: dict[int, int] = {}
    failures = []
    for number in range(count):
        argv, folder = fuzz.make(rng)
        try:
            status, _ = check(argv, capsys)
            statuses[status] = statuses.get(status, 0) + 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append((number, argv, f"{type(error).__name__}: {str(error)[:600]}"))
        shutil.rmtree(folder, ignore_errors=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert not failures, f"{len(failures)} of {count}: " + "\n".join(map(str, failures[:20]))
    assert grown < MOST_MEMORY
    return statuses


def test_a_few_broken_inputs(tmp_path, tiny_folder, finished_run, capsys, monkeypatch):
    statuses = storm(tmp_path, tiny_folder, finished_run, capsys, monkeypatch, 60, 1)
    assert statuses[2] > 20


@pytest.mark.slow
def test_thousands_of_broken_inputs(tmp_path, tiny_folder, finished_run, capsys, monkeypatch):
    began = time.monotonic()
    statuses = storm(tmp_path, tiny_folder, finished_run, capsys, monkeypatch, INPUTS, 0)
    with capsys.disabled():
        print(f"\n{INPUTS} inputs in {time.monotonic() - began:.0f} s; exit statuses {statuses}")
