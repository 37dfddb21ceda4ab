"""kill -9 at random moments of a command, until there have been enough."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

KILLS = 6
"""Of each command, at least."""


def command(argv, cache: Path) -> subprocess.Popen:
    env = os.environ | {"ADAPTERPROBE_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "adapterprobe.cli", *argv],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def seconds_alone(argv, cache: Path) -> float:
    began = time.monotonic()
    process = command(argv, cache)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return time.monotonic() - began


def storm(argv, cache: Path, whole: float, seed: int, start_over) -> int:
    """Kills until there have been `KILLS`, and the command has ended after the last of them. Returns how many."""
    rng = np.random.default_rng(seed)
    kills = 0
    while kills < KILLS:
        start_over()
        while True:
            process = command(argv, cache)
            try:
                # Mostly after the imports, when something is at stake.
                _, err = process.communicate(timeout=rng.uniform(0.35, 1.0) * whole)
                # Killed after its file was whole, `score` finds it there.
                done = process.returncode == 0 or "is there already" in err
                assert done and "Traceback" not in err, err
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
    return kills
