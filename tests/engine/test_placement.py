"""A model that no one device holds gives what it gives on one."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapter_contract import asked_capitals
from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.adapters.kinds import KINDS
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models import load_model
from adapterprobe.models.placement import devices_of, execution_device
from conftest import SEVERAL, small_config
from spread_models import ADAPTER, alike, everything, saved, spread_out, states_with_adapter


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return asked_capitals(tokenizer)


@SEVERAL
def test_weights_on_disk(family, tokenizer, encoded, tmp_path, cache):
    folder = saved(family, tokenizer, tmp_path / "model")
    whole = load_model(str(folder), dtype="fp32", device="cpu")
    spread = load_model(str(folder), dtype="fp32", device=spread_out(folder, {1: "disk", 3: "disk"}))
    assert next(spread.structure.blocks[1].parameters()).device.type == "meta"
    assert execution_device(spread.structure.blocks[1]).type == "cpu" == spread.device.type
    assert devices_of(spread.model) == ["cpu"]
    assert (spread.fingerprint, spread.vectors_hash) == (whole.fingerprint, whole.vectors_hash)
    ids = encoded.ids[:6]
    alike(everything(spread, ids, encoded, tmp_path / "a"), everything(whole, ids, encoded, tmp_path / "b"))


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("layout", ["two devices", "a device and main memory"])
def test_on_a_second_device(family, layout, tokenizer, tmp_path, cache):
    """Which is pretended (see `pretended_device`), in a process of its own: a backend is registered for good."""
    folder = saved(family, tokenizer, tmp_path / "model")
    script = Path(__file__).parents[1] / "on_two_devices.py"
    done = subprocess.run(
        [sys.executable, script, folder, layout, tmp_path],
        capture_output=True,
        text=True,
        cwd=script.parent,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "alike" in done.stdout


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_two_processes_share_a_model_out(family, tokenizer, tmp_path, cache):
    folder = saved(family, tokenizer, tmp_path / "model")
    script = Path(__file__).parents[1] / "on_two_processes.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", script, folder]
    done = subprocess.run(
        launch,
        capture_output=True,
        text=True,
        cwd=script.parent,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("alike") == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_adapter_on_weights_elsewhere(kind, tiny_folder, encoded, tmp_path, cache):
    """Trained and loaded to the same, or refused by name."""
    config = ADAPTER.model_copy(update={"kind": kind, "max_steps": 2, "lr": None})
    spread = load_model(str(tiny_folder), dtype="fp32", device=spread_out(tiny_folder, {1: "disk", 3: "disk"}))
    if KINDS[kind].reads_weights or KINDS[kind].initial:
        with pytest.raises(ConfigError, match=f"adapter.kind={kind} looks at the model's own weights"):
            attach(spread.model, spread.structure, config, 0)
        return
    whole = load_model(str(tiny_folder), dtype="fp32", device="cpu")
    found = [states_with_adapter(lm, config, encoded, tmp_path / name) for name, lm in (("a", spread), ("b", whole))]
    alike({"on": found[0]}, {"on": found[1]})


def test_a_saved_adapter_that_looks_at_weights_is_refused(tiny_folder, encoded, tmp_path, cache):
    whole = load_model(str(tiny_folder), dtype="fp32", device="cpu")
    states_with_adapter(whole, ADAPTER.model_copy(update={"kind": "dora", "max_steps": 2}), encoded, tmp_path)
    spread = load_model(str(tiny_folder), dtype="fp32", device=spread_out(tiny_folder, {1: "disk"}))
    with (
        pytest.raises(ModelError, match="looks at the model's own weights"),
        adapter_loaded(spread, tmp_path / "adapter"),
    ):
        pass


def test_what_was_kept_on_disk_is_gone_with_the_model(tiny_folder, tmp_path, cache):
    lm = load_model(str(tiny_folder), dtype="bf16", device=spread_out(tiny_folder, {1: "disk"}))
    Engine(lm.model, lm.structure)
    del lm
    gc.collect()
    assert not list((cache / "scratch").glob("offload-*"))


@pytest.mark.slow
def test_a_whole_run_equals_one_on_one_device(tiny_folder, tmp_path, cache):
    """Predictions to rounding, through the command's own way."""
    from adapterprobe.pipeline.run import run

    tables = []
    for name, device in (("one", "cpu"), ("spread", spread_out(tiny_folder, {1: "disk", 3: "disk"}))):
        config = small_config(tiny_folder, seeds=[0])
        config = config.model_copy(update={"model": config.model.model_copy(update={"device": device})})
        run(config, tmp_path / name)
        tables.append(pd.read_parquet(tmp_path / name / "predictions.parquet"))
        shutil.rmtree(cache)
    keys = ["prompt_id", "arm", "probe", "axis", "train_axis"]
    one, spread = (table.sort_values(keys).reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(one[keys], spread[keys])
    same_layer = one["layer"].fillna(-1) == spread["layer"].fillna(-1)
    assert same_layer.mean() > 0.9
    assert np.allclose(one.score[same_layer], spread.score[same_layer], atol=1e-3)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"device": "evenly"}, "no device 'evenly'"),
        ({"device": {}}, "has no module"),
        ({"device": {"model": "cuda:7"}}, "puts 'model' on 'cuda:7', and there is no cuda here"),
        ({"device": {"model": "meta"}}, "which computes nothing"),
        ({"device": {"model": "nowhere"}}, "which is no device"),
        ({"device": "cpu", "max_memory": {"cpu": "1GiB"}}, "deals nothing out"),
        ({"device": "balanced", "max_memory": {"cpu": "much"}}, "'much', which is no size"),
        ({"device": "balanced", "max_memory": {"cpu": "20"}}, "'20', which is no size"),
        ({"device": "balanced", "max_memory": {"cuda:0": "1GiB"}}, "'cuda:0', which is no number of a device"),
        ({"device": "balanced", "max_memory": {5: "1GiB"}}, "expected devices and sizes"),
    ],
)
def test_what_cannot_be_meant_is_said(settings, said, tiny_folder):
    with pytest.raises(ConfigError, match=said):
        load_model(str(tiny_folder), **settings)


def test_a_map_that_leaves_out_a_part(tiny_folder, cache):
    with pytest.raises(ModelError, match="cannot be spread out by model.device"):
        load_model(str(tiny_folder), device={"model.layers.0": "cpu", "model.layers.1": "disk"})


def test_memory_is_bounded(tiny_folder, tokenizer, encoded, cache):
    """What has no room in main memory goes to disk."""
    lm = load_model(str(tiny_folder), dtype="fp32", device="sequential", max_memory={"cpu": "100KiB"})
    assert "disk" in set(lm.model.hf_device_map.values())
    whole = load_model(str(tiny_folder), dtype="fp32", device="cpu")
    found = []
    for each in (lm, whole):
        engine = Engine(each.model, each.structure)
        (batch,) = engine.plan(encoded.ids[:4])
        found.append({"states": engine.run(batch).recorded})
    alike(*found)
