"""Sweeps on a local Ray cluster of two workers: the runs that there would be without it, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from adapterprobe.cli import main
from adapterprobe.config_files import to_yaml
from conftest import small_config

KEYS = ["prompt_id", "arm", "probe", "axis", "train_axis", "seed"]
GRID = ["--grid", "adapter.rank=[2,4]"]


@pytest.fixture(scope="module")
def config(tiny_folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("sweep") / "run.yaml"
    file.write_text(to_yaml(small_config(tiny_folder, seeds=[0], data={"max_ood_groups": 8})))
    return file


def predictions(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet").sort_values(KEYS).reset_index(drop=True)


def sweep(config, out, cache, grid=GRID, **environment) -> subprocess.Popen:
    """In a process of its own: Ray keeps one cluster a process."""
    command = [sys.executable, "-m", "adapterprobe.cli", "run", str(config), *grid, "--on", "ray", "--out", str(out)]
    environment = os.environ | {"ADAPTERPROBE_CACHE": str(cache)} | environment
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def workers() -> list[int]:
    """Of Ray, at work on a run."""
    import psutil

    return [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if "rank=" in " ".join(p.info["cmdline"] or []) and "ray::" in " ".join(p.info["cmdline"])
    ]


def wait_until(there) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def started(going, out) -> list[int]:
    """Workers, once a run has begun."""
    deadline = time.monotonic() + 300
    while not (found := workers()) or not list(out.glob("rank=*/config.yaml")):
        assert going.poll() is None and time.monotonic() < deadline, going.communicate()
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_equal_to_runs_in_turn_though_a_worker_is_killed(config, tmp_path, monkeypatch):
    going = sweep(config, tmp_path / "ray", tmp_path / "cache-ray")
    # Ctrl-C ends it, workers and all; the same command goes on.
    before = started(going, tmp_path / "ray")
    going.send_signal(signal.SIGINT)
    told = going.communicate(timeout=120)[1]
    assert going.returncode == 130 and "Traceback" not in told, told
    wait_until(lambda: not set(before) & set(workers()))
    going = sweep(config, tmp_path / "ray", tmp_path / "cache-ray")
    os.kill(started(going, tmp_path / "ray")[0], signal.SIGKILL)
    said = going.communicate(timeout=600)
    assert going.returncode == 0, said
    assert "rank=2 is finished (" in said[1] and "(2 of 2)" in said[1]
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache-here"))
    assert main(["run", str(config), *GRID, "--out", str(tmp_path / "here")]) == 0
    for name in ("rank=2", "rank=4"):
        ours, theirs = predictions(tmp_path / "here" / name), predictions(tmp_path / "ray" / name)
        pd.testing.assert_frame_equal(ours[KEYS], theirs[KEYS])
        same = ours["layer"].fillna(-1) == theirs["layer"].fillna(-1)
        # Workers have fewer threads, which add in another order.
        assert same.mean() > 0.9 and (ours.score - theirs.score)[same].abs().max() < 1e-3
    again = sweep(config, tmp_path / "ray", tmp_path / "cache-ray")
    assert again.communicate(timeout=300) and again.returncode == 0, "finished runs return at once"


def test_a_run_that_fails_is_told_and_the_others_go_on(config, tmp_path):
    going = sweep(config, tmp_path / "out", tmp_path / "cache", ["--grid", "adapter.layers=[1-3,2-3,90-95]"])
    told = going.communicate(timeout=600)[1]
    assert going.returncode == 2, told
    assert "layers=90-95 failed:" in told and "Traceback" not in told
    assert len(list((tmp_path / "out").glob("layers=*/report.html"))) == 2


def test_no_ray_at_the_address(config, tmp_path):
    going = sweep(config, tmp_path / "out", tmp_path / "cache", RAY_ADDRESS="127.0.0.1:1")
    told = going.communicate(timeout=300)[1]
    assert going.returncode == 2
    assert told.strip().splitlines()[-1].startswith("adapterprobe: no Ray at RAY_ADDRESS=127.0.0.1:1"), told


def test_one_run_is_not_shared_out(config, tmp_path, capsys):
    assert main(["run", str(config), "--on", "ray", "--out", str(tmp_path / "out")]) == 2
    assert "this is one run; give --grid" in capsys.readouterr().err


def test_ray_that_is_not_installed(config, tmp_path, capsys, monkeypatch):
    from adapterprobe.integrations import ray_cluster

    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    assert main(["run", str(config), *GRID, "--on", "ray", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'adapterprobe[ray]'" in capsys.readouterr().err
