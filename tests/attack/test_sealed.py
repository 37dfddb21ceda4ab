"""Nothing is lost, nothing is there twice, and what has changed since it was written is noticed."""

import fcntl
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from adapterprobe.adapters.adapter_folder import adapter_digest
from adapterprobe.cache import reserve
from adapterprobe.cli import main
from adapterprobe.system_errors import told

FILES = [
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "predictions.parquet",
    "prompts.parquet",
    "config.yaml",
]


@pytest.fixture
def run_copy(finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    shutil.copytree(finished_run / "out", tmp_path / "out")
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it?"}\n')
    return tmp_path / "out"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def refused(capsys, *words) -> str:
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("adapterprobe:"), error
    assert all(word in error[0] for word in words), error
    return error[0]


@pytest.mark.parametrize("name", [*FILES, "results.json", "probes"])
def test_a_flipped_byte_of_a_run(run_copy, finished_run, tmp_path, capsys, name):
    path = run_copy / name
    if name == "probes":
        path = sorted(path.glob("*.safetensors"))[0]
    flip(path)
    short = str(path.relative_to(run_copy))
    assert main(["score", str(run_copy), str(tmp_path / "p.jsonl")]) == 2
    refused(capsys, f"{short} has changed", "--accept-changes")
    assert main(["compare", str(run_copy), str(finished_run / "out"), "--out", str(tmp_path / "c")]) == 2
    refused(capsys, short)
    assert main(["report", str(run_copy)]) == 2
    refused(capsys, short)
    if name.startswith("adapter/"):
        assert main(["merge", str(run_copy / "adapter"), "--out", str(tmp_path / "m")]) == 2
        refused(capsys, short)


def test_a_flipped_byte_of_an_adapter_by_itself(run_copy, tiny_folder, tmp_path, capsys):
    shutil.copytree(run_copy / "adapter", tmp_path / "alone")
    flip(tmp_path / "alone" / "adapter_model.safetensors")
    base = ["--model", str(tiny_folder), "--dtype", "fp32"]
    assert main(["merge", str(tmp_path / "alone"), *base, "--out", str(tmp_path / "m")]) == 2
    refused(capsys, "adapter_model.safetensors has changed")
    argv = ["extract", *base, "--data", "capitals", "--limit", "2", "--adapter", str(tmp_path / "alone")]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 2
    assert "adapter_model.safetensors has changed" in capsys.readouterr().err


def test_a_deliberate_edit_is_accepted_when_said(run_copy, tmp_path, capsys):
    frame = pd.read_parquet(run_copy / "predictions.parquet")
    frame["score"] = 1 - frame["score"]
    frame.to_parquet(run_copy / "predictions.parquet", index=False)
    assert main(["report", str(run_copy)]) == 2
    refused(capsys, "predictions.parquet")
    assert main(["report", str(run_copy), "--accept-changes"]) == 0
    assert main(["score", str(run_copy), str(tmp_path / "p.jsonl")]) == 0
    assert main(["report", str(run_copy)]) == 0


def test_a_run_that_is_not_as_it_was_is_made_again(run_copy, finished_run, capsys):
    flip(run_copy / "results.json")
    assert main(["run", str(finished_run / "run.yaml"), "--out", str(run_copy)]) == 0
    assert "results.json has changed" in capsys.readouterr().err
    assert json.loads((run_copy / "results.json").read_text()) == json.loads(
        (finished_run / "out" / "results.json").read_text()
    )


@pytest.mark.parametrize("command", ["run", "score", "extract", "train", "screen", "merge", "compare", "report"])
def test_one_writer_an_output(command, run_copy, finished_run, tiny_folder, tmp_path, capsys):
    """Somebody else holds the output: refused in one line, at once, and nothing of theirs is touched."""
    out = run_copy if command == "report" else tmp_path / "held"
    target = out
    if command == "score":
        target = tmp_path / "s.jsonl.part"
        target.write_text("")
        handle = os.open(target, os.O_RDWR)
    else:
        out.mkdir(exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    argv = {
        "run": ["run", str(finished_run / "run.yaml"), "--out", str(out)],
        "score": ["score", str(run_copy), str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "s.jsonl")],
        "extract": ["extract", "--model", str(tiny_folder), "--data", "capitals", "--out", str(out)],
        "train": ["train", "--model", str(tiny_folder), "--out", str(out)],
        "screen": ["screen", "--model", str(tiny_folder), "--out", str(out)],
        "merge": ["merge", str(run_copy / "adapter"), "--out", str(out)],
        "compare": ["compare", str(run_copy), str(finished_run / "out"), "--out", str(out)],
        "report": ["report", str(run_copy)],
    }[command]
    try:
        assert main(argv) == 2
        refused(capsys, "another process is writing to")
        assert target.exists() and (command == "report" or command == "score" or not list(out.iterdir()))
    finally:
        os.close(handle)


@pytest.mark.slow
def test_two_scorings_into_one_file(run_copy, tmp_path):
    (tmp_path / "many.jsonl").write_text("".join(f'{{"prompt": "Is it {i}?"}}\n' for i in range(300)))
    argv = [
        sys.executable,
        "-m",
        "adapterprobe.cli",
        "score",
        str(run_copy),
        str(tmp_path / "many.jsonl"),
        "--out",
        str(tmp_path / "o.jsonl"),
    ]
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], told
    assert all("Traceback" not in text for text in told)
    lines = [json.loads(line)["prompt"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert lines == [f"Is it {i}?" for i in range(300)]


@pytest.mark.slow
def test_three_runs_into_one_folder(finished_run, tmp_path):
    argv = [
        sys.executable,
        "-m",
        "adapterprobe.cli",
        "run",
        str(finished_run / "run.yaml"),
        "--out",
        str(tmp_path / "o"),
    ]
    env = os.environ | {"ADAPTERPROBE_CACHE": str(tmp_path / "cache")}
    three = [
        subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) for _ in range(3)
    ]
    told = [process.communicate()[1] for process in three]
    assert sorted(process.returncode for process in three) == [0, 2, 2], told
    assert all("Traceback" not in text for text in told)
    assert json.loads((tmp_path / "o" / "run.json").read_text())["finished"]


def limited(argv, folder, size: int) -> subprocess.CompletedProcess:
    """A command whose files may have so many bytes at most: what a full disk does, without one."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    env = os.environ | {"ADAPTERPROBE_CACHE": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "adapterprobe.cli", *argv], preexec_fn=limit, env=env, capture_output=True, text=True
    )


@pytest.mark.parametrize("size", [5_000, 60_000])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tiny_folder, tmp_path, size):
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        "capitals",
        "--shots",
        "1",
        "--limit",
        "300",
        "--dtype",
        "fp32",
        "--out",
        str(tmp_path / "s"),
    ]
    done = limited(argv, tmp_path / "cache", size)
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("adapterprobe:")]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr[-800:]
    assert "File too large" in lines[0]
    again = limited(argv, tmp_path / "cache", resource.RLIM_INFINITY)
    assert again.returncode == 0, again.stderr[-500:]
    assert len(pd.read_parquet(tmp_path / "s" / "prompts.parquet")) == 300


@pytest.mark.slow
def test_a_full_disk_in_a_run(finished_run, tmp_path):
    """At several sizes, so that it is another file each time that does not fit; then the same command ends like a run that nobody
    disturbed."""
    argv = ["run", str(finished_run / "run.yaml"), "--out", str(tmp_path / "o")]
    stopped = set()
    for size in (3_000, 20_000, 40_000, 90_000, 250_000, 700_000):
        done = limited(argv, tmp_path / "cache", size)
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr[-800:]
        stopped.add(done.stderr.strip().splitlines()[-1][:60])
    done = limited(argv, tmp_path / "cache", resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr[-500:]
    for name in ("results.json", "verdicts.json"):
        assert json.loads((tmp_path / "o" / name).read_text()) == json.loads((finished_run / "out" / name).read_text())


def test_space_is_taken_before_a_memory_map_writes(tmp_path):
    reserve(tmp_path / "a", 1 << 20)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 1 << 20, "not a sparse file"
    reserve(tmp_path / "b", 0)
    assert (tmp_path / "b").stat().st_size == 0


def test_the_output_folder_goes_in_mid_run(finished_run, tmp_path, monkeypatch, capsys):
    """Removed while it runs: one line, and the same command goes on."""
    module = importlib.import_module("adapterprobe.pipeline.run")

    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    real = module.fit_arms

    def removing(*args, **kwargs):
        shutil.rmtree(tmp_path / "o")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit_arms", removing)
    argv = ["run", str(finished_run / "run.yaml"), "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("adapterprobe: cannot read or write") and "run the same command again" in error
    monkeypatch.setattr(module, "fit_arms", real)
    assert main(argv) == 0
    assert json.loads((tmp_path / "o" / "verdicts.json").read_text()) == json.loads(
        (finished_run / "out" / "verdicts.json").read_text()
    )


def test_a_cache_that_can_only_be_read(cache, monkeypatch, capsys):
    entry = cache / "states" / "abc"
    entry.mkdir(parents=True)
    (entry / "x").write_text("1")

    def refuse(path, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert main(["cache", "prune", "--all"]) == 2
    refused(capsys, "cannot remove", "Read-only file system")


def test_a_pruning_that_is_stopped_leaves_nothing_that_looks_whole(cache, monkeypatch):
    from adapterprobe.cache import entry, is_whole
    from adapterprobe.cache_entries import cache_entries, prune

    folder = entry("states", "abc", lambda part: (part / "x").write_text("1"))
    assert is_whole(folder)
    from adapterprobe.cache import let_go

    let_go(folder)

    def killed(path, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune()
    assert not is_whole(folder) and [e.state for e in cache_entries()] == ["unfinished"]


def test_an_adapter_has_one_identity(run_copy, tiny_folder, tmp_path, cache):
    """However sets are ordered in its settings, and in whichever process it is trained."""
    path = run_copy / "adapter" / "adapter_config.json"
    first = adapter_digest(run_copy / "adapter")
    content = json.loads(path.read_text())
    assert content["target_modules"] == sorted(content["target_modules"]) and len(content["target_modules"]) > 3
    path.write_text(json.dumps(content | {"target_modules": content["target_modules"][::-1]}))
    assert adapter_digest(run_copy / "adapter") == first
    path.write_text(json.dumps(content | {"lora_alpha": 3}))
    assert adapter_digest(run_copy / "adapter") != first, "what decides the outcome does count"
    texts = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "ADAPTERPROBE_CACHE": str(tmp_path / f"cache{seed}")}
        argv = [
            "train",
            "--model",
            str(tiny_folder),
            "--dtype",
            "fp32",
            "--steps",
            "1",
            "--out",
            str(tmp_path / f"t{seed}"),
        ]
        subprocess.run([sys.executable, "-m", "adapterprobe.cli", *argv], env=env, check=True, capture_output=True)
        texts.add((tmp_path / f"t{seed}" / "adapter" / "adapter_config.json").read_text())
    assert len(texts) == 1


def test_system_errors_say_what_to_do():
    text = told(OSError(28, "No space left on device", "/x/y"))
    assert "/x/y" in text and "free some space" in text and "kept" in text
