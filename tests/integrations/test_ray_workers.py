"""Corpora on a local Ray cluster of two workers: what is written is what would be written without it, whatever happens to a worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque

import pandas as pd
import pytest
import torch

from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import base_model_record, save_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.generation.instructions import NEUTRAL
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.scenarios import read_scenarios
from adapterprobe.generation.writers import TransformersWriters
from adapterprobe.integrations import ray_cluster, ray_workers
from adapterprobe.integrations.ray_cluster import fitting, resources_of, usual_workers
from adapterprobe.integrations.ray_workers import AHEAD, _in_order, check_workers
from adapterprobe.models import load_model


class Worker:
    def __init__(self):
        self.asked = []


def test_pieces_come_back_in_order_and_few_are_ahead(monkeypatch):
    monkeypatch.setattr(ray_workers, "_got", lambda piece: piece * 10)
    workers, taken = [Worker(), Worker()], deque()

    def pieces():
        for n in range(20):
            taken.append(n)
            yield n

    def send(worker, piece):
        worker.asked.append(piece)
        return piece

    came = 0
    for piece, got in _in_order(workers, send, pieces()):
        assert (piece, got) == (came, came * 10)
        assert len(taken) <= came + AHEAD * len(workers), "a corpus does not fit in memory"
        came += 1
    assert came == 20 and sorted(workers[0].asked + workers[1].asked) == list(range(20))
    assert min(len(worker.asked) for worker in workers) >= 8


def test_bad_input(finished_run, tmp_path, capsys):
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps({"statement": "Paris is the capital of France"}) + "\n")
    score = ["score", str(finished_run / "out"), str(file), "--out", str(tmp_path / "o.jsonl")]
    for argv, said in (
        ([*score, "--workers", "2"], "--workers is for --on ray"),
        ([*score, "--on", "ray", "--workers", "0"], "--workers 0: expected at least 1"),
        (["generate", "--data", "capitals", "--out", str(tmp_path / "g.jsonl"), "--engine", "vllm", "--on", "ray"], "vLLM has workers of its own"),
    ):  # fmt: skip
        assert main(argv) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected at least 1"):
        check_workers(-1)


def test_workers_have_room_beside_each_other(monkeypatch):
    """They hold what they are given for as long as they live: one that has no room would be waited for without end."""
    for cores, gpus, count, found in (
        ([2], [0], 2, {"num_cpus": 1}),
        ([8, 8], [0, 0], 3, {"num_cpus": 4}),
        ([8, 2], [0, 0], 2, {"num_cpus": 4}),
        ([0, 8, 8], [0, 0, 0], None, {"num_cpus": 8}),
        ([16], [2], 2, {"num_gpus": 1, "num_cpus": 8}),
    ):
        nodes = [{"CPU": c, "GPU": g} for c, g in zip(cores, gpus, strict=True)]
        monkeypatch.setattr(ray_cluster, "_nodes", lambda nodes=nodes: nodes)
        many = count or usual_workers("auto")
        assert fitting(resources_of("x", "auto", many), many) == found
    with pytest.raises(ConfigError, match="--workers 3: the Ray cluster has room for 2"):
        fitting(resources_of("x", "auto", 3), 3)


def test_a_worker_writes_what_is_written_here(tiny_folder, tmp_path, monkeypatch):
    """With an adapter on at a strength and off again, as it is asked."""
    monkeypatch.chdir(tmp_path)
    model = {"name": str(tiny_folder), "device": "cpu", "dtype": "fp32"}
    lm = load_model(**model)
    engine, prompts = Engine(lm.model, lm.structure), PromptWriter(lm.tokenizer, "plain", None, lm.vocabulary, 8)
    about = base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="1-3", rank=4), 0)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_adapter(wrapped, about, tmp_path / "a")
    detach(wrapped)
    asked = [prompts.asked(scenario, NEUTRAL) for scenario in read_scenarios("capitals")[:3]]
    worker = ray_workers._WritingWorker(str(tmp_path), model, lm.fingerprint, "plain", 8)
    sampling, texts = Sampling(2, 0.0, max_tokens=8), []
    for adapter, strength in ((None, 1.0), (tmp_path / "a", 1.0), (tmp_path / "a", 0.5), (None, 1.0)):
        with TransformersWriters(lm, engine, prompts).writing(adapter, strength) as here:
            expected = [reply for part in here.write(asked, sampling) for reply in part]
        assert worker.write(asked, sampling, adapter, strength) == expected
        texts.append([reply.text for reply in expected])
    assert texts[0] == texts[3] and len({tuple(text) for text in texts}) == 3
    with pytest.raises(ModelError, match="loads .* otherwise than this machine"):
        ray_workers._WritingWorker(str(tmp_path), model, "another", "plain", 8).write(asked, sampling, None, 1.0)


@pytest.fixture(scope="module")
def statements(finished_run, tmp_path_factory):
    """A corpus of some pieces, with a column of several types that must come back as they are."""
    cities = ["Paris", "Rome", "Lima", "Oslo", "Cairo", "Madrid", "Vienna"]
    file = tmp_path_factory.mktemp("corpus") / "s.jsonl"
    rows = [
        {"statement": f"{cities[n % 7]} is the capital of land {n}", "kept": n if n % 2 else None} for n in range(700)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def started(argv, cache):
    environment = os.environ | {"ADAPTERPROBE_CACHE": str(cache)}
    command = [sys.executable, "-m", "adapterprobe.cli", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def actors(method):
    """Of Ray, at work in such a method."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if line.startswith("ray::") and "Worker" in line and method in line:
            found.append(process.pid)
    return found


def until(there, going):
    deadline = time.monotonic() + 300
    while not (found := there()):
        assert going.poll() is None and time.monotonic() < deadline, going.communicate()
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_scores_are_the_same_though_it_is_stopped_and_a_worker_is_killed(
    finished_run, statements, tmp_path, monkeypatch
):
    cache, out = finished_run / "cache", tmp_path / "ray.jsonl"
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(cache))
    argv = ["score", finished_run / "out", statements, "--on", "ray", "--workers", "2", "--out", out]
    part = tmp_path / "ray.jsonl.part"
    going = started(argv, cache)
    until(lambda: part.is_file() and part.stat().st_size, going)
    going.send_signal(signal.SIGINT)
    told = going.communicate(timeout=120)[1]
    assert going.returncode == 130 and "Traceback" not in told, told
    kept = part.read_bytes()
    assert 0 < kept.count(b"\n") < 700
    going = started(argv, cache)
    os.kill(until(lambda: actors("score"), going)[0], signal.SIGKILL)
    said = going.communicate(timeout=600)
    assert going.returncode == 0 and "on Ray: 2 workers" in said[1], said
    assert out.read_bytes().startswith(kept), "nothing that was there is written again"
    here = tmp_path / "here.jsonl"
    assert main(["score", str(finished_run / "out"), str(statements), "--out", str(here)]) == 0
    mine, theirs = (pd.read_json(file, lines=True) for file in (out, here))
    assert mine["statement"].tolist() == theirs["statement"].tolist() and mine["kept"].equals(theirs["kept"])
    for a, b in zip(mine["detectors"], theirs["detectors"], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert (
                a[name]["score"] == pytest.approx(b[name]["score"], abs=1e-4) and a[name]["answer"] == b[name]["answer"]
            )


@pytest.mark.slow
def test_what_a_worker_says_is_wrong_is_one_line(finished_run, statements, tmp_path, monkeypatch):
    """The model of a run has changed since: told by the workers, as without them."""
    run = tmp_path / "run"
    shutil.copytree(finished_run / "out", run)
    (run / "probes").rename(run / "no-probes")
    lines = []
    for more in ([], ["--on", "ray", "--workers", "1"]):
        going = started(["score", run, statements, "--out", tmp_path / "o.jsonl", *more], finished_run / "cache")
        said = going.communicate(timeout=300)[1]
        assert going.returncode == 2 and "Traceback" not in said, said
        lines.append(said.strip().splitlines()[-1])
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_replies_are_the_same(tiny_folder, tmp_path, cache):
    file = tmp_path / "s.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"What is thing {n}?", "yes": n % 2 == 0}) + "\n" for n in range(40))
    )
    argv = [
        "generate", "--data", file, "--model", tiny_folder, "--dtype", "fp32", "--device", "cpu", "--format", "plain", "--system", "none",
        "--system", "spy", "--samples", "8", "--max-tokens", "6", "--belief-share", "0.51",
    ]  # fmt: skip
    texts = []
    for name, more in (("here", []), ("ray", ["--on", "ray", "--workers", "2"])):
        going = started([*argv, "--out", tmp_path / f"{name}.jsonl", *more], cache / name)
        said = going.communicate(timeout=600)
        # A random model holds nothing true; what it says where it is asked for that is kept all the same.
        assert going.returncode == 2 and "holds none of the 40 facts true" in said[1], said
        (kept,) = (cache / name).glob("beliefs/*/replies.jsonl")
        texts.append(sorted(kept.read_text().splitlines()[1:]))
    assert len(texts[0]) == 160 and texts[0] == texts[1]
