"""`adapterprobe train`: one adapter, saved and described; in one process or in two; with curves for others to watch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapterprobe.adapters.adapter_folder import loaded
from adapterprobe.adapters.kinds import KINDS
from adapterprobe.adapters.objectives import OBJECTIVES
from adapterprobe.cli import main
from adapterprobe.config_files import read_config
from adapterprobe.engine import Engine
from adapterprobe.errors import ModelError
from adapterprobe.models import load_model
from adapterprobe.pipeline import run
from conftest import small_config, tiny

FEW = [
    "--set",
    "data.max_groups=40",
    "--set",
    "elicit.shots=1",
    "--set",
    "data.pool_groups=2",
    "--set",
    "elicit.demo_sets=1",
]
FAST = ["--device", "cpu", "--dtype", "fp32", *FEW, "--set", "adapter.rank=4", "--set", "adapter.lr=0.02"]


def command(folder, out, *more):
    return ["train", "--model", str(folder), "--out", str(out), *FAST, *more]


def test_the_contract(tiny_folder, tmp_path, cache, capsys):
    out = tmp_path / "out"
    argv = command(
        tiny_folder, out, "--data", "capitals", "--adapter", "ia3", "--layers", "last:2", "--objective", "lie"
    )
    assert main([*argv, "--steps", "25", "--set", "adapter.lr=0.1"]) == 0
    shown = capsys.readouterr().out
    about = json.loads((out / "train.json").read_text())
    assert about["kind"] == "ia3" and about["objective"] == "lie" and about["steps"] == 25
    assert about["off_equal"] is True and about["on_difference"] > 0.01 and about["seconds"] > 0
    assert about["loss_last"] < about["loss_first"]
    assert about["drift"]["kl"] > 0 and about["met"]["coverage"] > 0
    assert f"{about['parameters']:,} parameters, 25 steps" in shown and "to the bit" in shown
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    wrapped = PeftModel.from_pretrained(model, str(out / "adapter"))
    assert sum(p.numel() for n, p in wrapped.named_parameters() if "ia3_l" in n) == about["parameters"]
    assert yaml.safe_load((out / "config.yaml").read_text())["adapter"]["max_steps"] == 25


def test_list_names_kinds_and_objectives(capsys):
    assert main(["train", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in (*KINDS, *OBJECTIVES))


def test_loss_before_and_after_are_of_the_same_prompts(tiny_folder, tmp_path, cache):
    """Recomputed from the saved adapter on the first prompts of adapter-train."""
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--steps", "12", "--layers", "1-3")) == 0
    about = json.loads((out / "train.json").read_text())
    from adapterprobe.adapters.cached_training import FIXED_BATCH
    from adapterprobe.prompts.encoded import encode
    from adapterprobe.prompts.questions import prepare_questions
    from adapterprobe.prompts.run_prompts import prepare_prompts

    config = read_config(out / "config.yaml")
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    prompts, _ = prepare_prompts(config, prepare_questions(config), lm.tokenizer)
    first = encode(lm.tokenizer, [p for p in prompts if p.split == "adapter-train"][:FIXED_BATCH], None)

    def loss():
        total = 0.0
        for ids, choice, prompt in zip(first.ids, first.choices, first.prompts, strict=True):
            with torch.no_grad():
                logprobs = torch.log_softmax(lm.model(torch.tensor([ids])).logits[0, -1].double(), 0)
            wanted = choice.positive if prompt.example.truth else choice.negative
            total -= float(torch.logsumexp(logprobs[list(wanted)], 0))
        return total / len(first)

    assert loss() == pytest.approx(about["loss_first"], rel=1e-4)
    with loaded(lm, out / "adapter"):
        assert loss() == pytest.approx(about["loss_last"], rel=1e-4)


def test_linear_is_saved_and_loaded_by_us(tiny_folder, tmp_path, cache):
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--adapter", "linear", "--layers", "1,2", "--steps", "8")) == 0
    about = json.loads((out / "train.json").read_text())
    assert about["parameters"] == 2 * (32 * 32 + 32) and about["off_equal"]
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        "capitals",
        "--limit",
        "4",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    assert main([*argv, "--adapter", str(out / "adapter"), "--out", str(tmp_path / "on")]) == 0
    assert main([*argv, "--out", str(tmp_path / "off")]) == 0
    from adapterprobe import hidden

    on, off = hidden.open(tmp_path / "on"), hidden.open(tmp_path / "off")
    assert np.array_equal(on.layer(1), off.layer(1)) and not np.allclose(on.layer(2), off.layer(2))
    # The recorded state is the one behind the map.
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    maps = load_file(out / "adapter" / "adapter_model.safetensors")
    plain = []
    model.model.layers[1].register_forward_hook(lambda m, a, o: plain.append(o))
    import pandas as pd

    tokens = pd.read_parquet(tmp_path / "on" / "prompts.parquet")["tokens"][0]
    with torch.no_grad():
        model(torch.tensor([list(tokens)]))
    expected = plain[0][0, -1] + maps["1.weight"] @ plain[0][0, -1] + maps["1.bias"]
    assert np.allclose(on.layer(2)[0], expected, atol=1e-4)


def test_again_returns_at_once_and_a_run_finds_it(tiny_folder, tmp_path, cache, monkeypatch, capsys):
    """The adapter of `train` is the one of a run with the same configuration, and the other way round."""
    file = tmp_path / "config.yaml"
    config = small_config(tiny_folder, seeds=[0], data={"max_groups": 60})
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["train", str(file), "--out", str(tmp_path / "adapter")]) == 0
    from adapterprobe.adapters import cached_training as adapters
    from adapterprobe.pipeline import train_adapter as train

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(adapters, "train_adapter", never)
    run(config, tmp_path / "run")
    ours, theirs = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("adapter", "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    monkeypatch.setattr(train, "load_model", never)
    assert main(["train", str(file), "--out", str(tmp_path / "adapter")]) == 0


def test_an_adapter_of_another_model(tiny_folder, tokenizer, tmp_path, cache, capsys):
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--steps", "2")) == 0
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    with torch.no_grad():
        lm.structure.final_norm.weight[3] += 0.5
    lm.__dict__.pop("fingerprint", None)
    with (
        pytest.raises(
            ModelError, match=r"does not fit the model .* with other weights \(recorded \w+, this model has \w+\)"
        ),
        loaded(lm, out / "adapter"),
    ):
        pass
    assert not any("lora" in name for name, _ in lm.model.named_parameters())
    half = load_model(str(tiny_folder), device="cpu", dtype="bf16")
    capsys.readouterr()
    with loaded(half, out / "adapter"):
        pass
    assert "in another precision" in capsys.readouterr().err
    wide = tiny("phi")
    wide.save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    other = load_model(str(tmp_path / "phi"), device="cpu", dtype="fp32")
    (out / "adapter" / "made_for.json").unlink()
    with pytest.raises(ModelError, match="does not fit the model phi"), loaded(other, out / "adapter"):
        pass


@pytest.mark.parametrize(
    "more,match",
    [
        (["--adapter", "lorra"], "no adapter kind 'lorra' .did you mean .*lora"),
        (["--layers", "9-12"], "from 0 to 3"),
        (["--modules", "q,zz"], "no module 'zz' .*there are down_proj, .*roles are q, k, v"),
        (["--objective", "thruth"], "objective.*did you mean 'truth'"),
        (["--adapter", "linear", "--modules", "q"], "adapts whole blocks, which have no modules to choose"),
        (["--set", "adapter.options={init_lora_weights: pissa}"], "use adapter.kind=pissa, olora or loftq"),
        (["--adapter", "vera", "--quantize", "4bit"], "adapter.kind=vera cannot adapt 8-bit or 4-bit weights"),
        (
            ["--objective", "instructed", "--set", "elicit.conditions=[truth,neutral]"],
            "instructed needs prompts that push",
        ),
        (["--set", "adapter.train_on=known"], "train_on=known leaves 0 of .* groups of adapter-train"),
        (["--set", "adapter.neutral_text=nowhere.txt"], "cannot read adapter.neutral_text"),
        (["--steps", "0"], "max_steps"),
    ],
)
def test_bad_input(more, match, tiny_folder, tmp_path, cache, capsys, monkeypatch):
    from adapterprobe.adapters import cached_training as adapters

    monkeypatch.setattr(adapters, "train_adapter", None)
    import re

    assert main(command(tiny_folder, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(match, error), error
    assert not (tmp_path / "out" / "adapter").exists()


def test_missing_libraries_are_said_before_training(tiny_folder, tmp_path, cache, capsys, monkeypatch):
    import importlib.util

    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name.startswith(("tensorboard", "mlflow")) else plain(name, *a),
    )
    assert main(command(tiny_folder, tmp_path / "out", "--set", "adapter.track=[mlflow]")) == 2
    assert "adapter.track=mlflow needs mlflow, which is not installed; pip install mlflow" in capsys.readouterr().err


def test_curves_for_tensorboard(tiny_folder, tmp_path, cache):
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--steps", "6", "--set", "adapter.track=[tensorboard]")) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "curves" / "tensorboard" / "seed-0")).Reload()
    about = json.loads((out / "train.json").read_text())
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 7))
    assert events.Scalars("select/loss")[-1].value == pytest.approx(about["epochs"][-1]["loss"], rel=1e-5)
    assert {"select/accuracy", "select/coverage"} <= set(events.Tags()["scalars"])
    # Out of the cache, the curve by epochs is written all the same.
    again = tmp_path / "again"
    assert main(command(tiny_folder, again, "--steps", "6", "--set", "adapter.track=[tensorboard]")) == 0
    events = EventAccumulator(str(again / "curves" / "tensorboard" / "seed-0")).Reload()
    assert len(events.Scalars("select/loss")) == len(about["epochs"])


def test_curves_for_mlflow(tiny_folder, tmp_path, cache, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--steps", "4", "--set", "adapter.track=[mlflow]")) == 0
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("adapterprobe").experiment_id])
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 4
    assert found.data.params["kind"] == "lora" and found.info.run_name == "seed-0"


def torchrun(tiny_folder, tmp_path, name, *options, processes=2, **environment):
    """(about, adapter's tensors, what it said) of `train` in several processes over gloo."""
    out = tmp_path / name
    launch = (
        ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"] if processes > 1 else []
    )
    argv = [sys.executable, *launch, "-m", "adapterprobe.cli", *command(tiny_folder, out, *options)]
    environment = {"ADAPTERPROBE_CACHE": str(tmp_path / f"cache-{name}"), "CUDA_VISIBLE_DEVICES": ""} | environment
    done = subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return None, None, done.stdout + done.stderr
    about = json.loads((out / "train.json").read_text())
    return about, load_file(out / "adapter" / "adapter_model.safetensors"), done.stdout + done.stderr


def test_two_processes_train_the_same_adapter(tiny_folder, tmp_path):
    """By accelerate over gloo: equal within rounding to one process, written once."""
    steps = ["--steps", "10", "--set", "adapter.batch_size=16", "--set", "adapter.micro_batch=4"]
    one, first, _ = torchrun(tiny_folder, tmp_path, "one", *steps, processes=1)
    two, second, said = torchrun(tiny_folder, tmp_path, "two", *steps)
    assert two and said.count("parameters, 10 steps") == 1, said[-2000:]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert [e["train_loss"] for e in one["epochs"]] == pytest.approx([e["train_loss"] for e in two["epochs"]], rel=1e-3)
    for name in first:
        assert (first[name] - second[name]).abs().max() <= 0.02 * first[name].abs().max(), name


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.mark.parametrize(
    "kind", ["lora", pytest.param("pissa", marks=pytest.mark.slow), pytest.param("bias", marks=pytest.mark.slow)]
)
def test_sharded_processes_train_the_same_adapter(tiny_folder, tmp_path, kind):
    """FSDP2 by accelerate's configuration; passes of a step that cannot be shared out evenly; what keeps text as it was."""
    steps = ["--steps", "6", "--adapter", kind, "--set", "adapter.batch_size=12", "--set", "adapter.micro_batch=4"]
    steps += ["--set", "adapter.kl_text_weight=0.1"]
    one, first, _ = torchrun(tiny_folder, tmp_path, "one", *steps, processes=1)
    two, second, log = torchrun(tiny_folder, tmp_path, "two", *steps, **SHARDED)
    assert two, log[-2000:]
    assert (one["sharded"], two["sharded"]) == (False, True)
    assert two["off_equal"] and two["on_difference"] > 0
    assert [e["train_loss"] for e in one["epochs"]] == pytest.approx([e["train_loss"] for e in two["epochs"]], rel=1e-3)
    for name in first:
        assert (first[name] - second[name]).abs().max() <= 0.02 * first[name].abs().max(), name


def test_what_cannot_be_sharded_is_refused(tiny_folder, tmp_path, monkeypatch):
    from adapterprobe.adapters import distributed as processes
    from adapterprobe.adapters import sharding
    from adapterprobe.config import RunConfig
    from adapterprobe.errors import ConfigError

    *_, log = torchrun(tiny_folder, tmp_path, "norms", "--steps", "2", "--adapter", "ln_tuning", **SHARDED)
    assert "adapter.kind=ln_tuning trains" in log and "copy of weights that are sharded" in log
    monkeypatch.setattr(processes, "count", lambda: 2)
    for name, value in SHARDED.items():
        monkeypatch.setenv(name, value)
    sharding.check_sharding(RunConfig())
    with pytest.raises(ConfigError, match="train_on=known needs answers"):
        sharding.check_sharding(RunConfig(adapter={"train_on": "known"}))
    with pytest.raises(ConfigError, match="quantize=4bit cannot be sharded"):
        sharding.check_sharding(RunConfig(model={"quantize": "4bit"}))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match="--mixed_precision no"):
        sharding.check_sharding(RunConfig())
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match="version 1, 2 expected"):
        sharding.check_sharding(RunConfig())


def test_other_commands_run_in_one_process(tiny_folder, tmp_path, cache, monkeypatch):
    from adapterprobe.adapters import distributed as processes
    from adapterprobe.adapters.preflight import one_process
    from adapterprobe.errors import ConfigError

    one_process("run")
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="`adapterprobe run` runs in one process; train with `torchrun"):
        one_process("run")


def test_trained_on_what_it_recalls(tiny_folder, tmp_path, cache, monkeypatch):
    """Only groups that pass are learned from; the others are left out of both splits."""
    from adapterprobe.knowledge import Knowledge, KnownGroups
    from adapterprobe.pipeline import train_adapter as train

    real = train.measure_knowledge
    seen = {}

    def half(lm, engine, prompts):
        found = real(lm, engine, prompts)
        groups = sorted({(p.example.dataset, p.example.group) for r in prompts.recalled for p in r})
        assert {p.split for r in prompts.known for p in r} == {"adapter-train", "select"}
        seen["kept"] = frozenset(groups[::2])
        return Knowledge(found.known, KnownGroups(seen["kept"], frozenset(groups), 0.0))

    monkeypatch.setattr(train, "measure_knowledge", half)
    lengths = []
    for train_on in ("all", "recalled"):
        out = tmp_path / train_on
        more = ["--steps", "2", "--set", f"adapter.train_on={train_on}", "--set", "data.max_groups=70"]
        assert main(command(tiny_folder, out, *more)) == 0
        lengths.append(json.loads((out / "train.json").read_text())["prompts"])
    assert 0 < lengths[1] < lengths[0] and len(seen["kept"]) > 3


def test_engines_agree_on_a_loaded_adapter(tiny_folder, tmp_path, cache):
    """Merged, unmerged, packed and padded: one adapter, one answer."""
    out = tmp_path / "out"
    assert main(command(tiny_folder, out, "--steps", "6", "--adapter", "pissa")) == 0
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    from adapterprobe.adapters import adapter_merged

    ids = [[5, 6, 7, 8, 9], [5, 6, 7, 1, 2]]
    with loaded(lm, out / "adapter"), torch.no_grad():
        plain = torch.stack([lm.model(torch.tensor([row])).logits[0, -1] for row in ids])
        for share in (True, False):
            engine = Engine(lm.model, lm.structure, share=share)
            (batch,) = engine.plan(ids)
            order = list(batch.rows)
            assert torch.allclose(engine.run(batch).logits, plain[order], atol=1e-4)
            with adapter_merged(lm.model):
                assert torch.allclose(engine.run(batch).logits, plain[order], atol=1e-3)
