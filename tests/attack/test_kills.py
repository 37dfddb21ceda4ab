"""kill -9 at random moments of every command that writes: the same command ends like one that nobody disturbed.

`run` has a storm of its own in tests/cli/test_run.py.
"""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterprobe.activations import open as open_states
from kill_storm import KILLS, command, seconds_alone, storm


def same_states(one: Path, two: Path) -> bool:
    tables = [pd.read_parquet(folder / "prompts.parquet") for folder in (one, two)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    states = [open_states(folder) for folder in (one, two)]
    return all((states[0].layer(layer) == states[1].layer(layer)).all() for layer in states[0].layers)


def same_files(one: Path, two: Path, names) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["extract", "score", "train", "screen", "merge"])
def test_a_storm_of_kills(what, finished_run, tiny_folder, tmp_path):
    model = ["--model", str(tiny_folder), "--dtype", "fp32"]
    cache = tmp_path / "cache"
    rows = "".join(json.dumps({"prompt": f"Is it {i}? Answer:"}) + "\n" for i in range(1500))
    (tmp_path / "p.jsonl").write_text(rows)

    def argv(out: Path) -> list[str]:
        return {
            "extract": ["extract", *model, "--data", "capitals", "--shots", "2", "--out", str(out)],
            "score": ["score", str(finished_run / "out"), str(tmp_path / "p.jsonl"), "--out", f"{out}.jsonl"],
            "train": ["train", *model, "--data", "capitals", "--steps", "60", "--out", str(out)],
            "screen": [
                "screen",
                "--model",
                str(tiny_folder),
                "--dtype",
                "fp32",
                "--format",
                "plain",
                "--shots",
                "1",
                "--facts",
                "60",
                "--out",
                str(out),
            ],
            "merge": ["merge", str(finished_run / "out" / "adapter"), *model, "--out", str(out)],
        }[what]

    expected, out = tmp_path / "expected", tmp_path / "out"
    whole = seconds_alone(argv(expected), tmp_path / "cache-expected")

    def start_over():
        shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        for path in tmp_path.glob("out.jsonl*"):
            path.unlink()

    kills = storm(argv(out), cache, whole, 7, start_over)
    assert kills >= KILLS
    if what == "extract":
        assert same_states(expected, out)
    elif what == "score":
        ids = [json.loads(line)["prompt"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert ids == [f"Is it {i}? Answer:" for i in range(1500)], "no row lost, none twice"
        pairs = zip(
            (tmp_path / "expected.jsonl").read_text().splitlines(),
            (tmp_path / "out.jsonl").read_text().splitlines(),
            strict=True,
        )
        for one, two in pairs:
            for name, told in json.loads(one)["detectors"].items():
                assert told["score"] == pytest.approx(json.loads(two)["detectors"][name]["score"], abs=1e-6)
        assert not list(tmp_path.glob("out.jsonl.part*"))
    elif what == "train":
        assert same_files(expected, out, ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
    elif what == "screen":
        assert same_files(expected, out, ["screen.json"])
    else:
        assert same_files(expected, out, ["model.safetensors", "config.json"])


@pytest.mark.slow
def test_a_pruning_that_is_killed(tiny_folder, tmp_path):
    """While it removes a cache of many entries; whatever it leaves is made again, and nothing half-removed is taken for whole."""
    cache, rng = tmp_path / "cache", np.random.default_rng(3)
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--dtype",
        "fp32",
        "--data",
        "capitals",
        "--shots",
        "1",
        "--limit",
        "100",
    ]
    seconds_alone([*argv, "--out", str(tmp_path / "expected")], tmp_path / "cache-expected")
    for kill in range(KILLS):
        seconds_alone([*argv, "--out", str(tmp_path / f"a{kill}")], cache)
        for number in range(400):
            folder = cache / "states" / f"extra{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "states.bin").write_bytes(b"x" * 20)
        process = command(["cache", "prune", "--all"], cache)
        deadline = time.monotonic() + 60
        while (
            len(list((cache / "states").iterdir())) > rng.integers(50, 390)
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seconds_alone([*argv, "--out", str(tmp_path / f"b{kill}")], cache)
        assert same_states(tmp_path / "expected", tmp_path / f"b{kill}")
    assert command(["cache", "prune", "--all"], cache).wait() == 0
