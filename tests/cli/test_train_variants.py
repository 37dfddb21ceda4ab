"""`adapterprobe train` of several adapters by one configuration: each in its folder, merged, told of in one table."""

import json

import numpy as np
import pytest
import torch

from adapterprobe.cli import main
from adapterprobe.config_files import read_config
from adapterprobe.errors import ConfigError
from adapterprobe.models import load_model
from adapterprobe.pipeline.train_variants import variant_configs, variant_row, variants_table

CONFIG = """
data:
  train: [capitals]
  ood: []
  shares: {{adapter-train: 0.8, probe-train: 0, select: 0.2, calibrate: 0, test: 0}}
  max_groups: 30
  min_groups: 2
model: {{name: "{model}", dtype: fp32, device: cpu}}
adapter: {{layers: 1-3, rank: 4, max_steps: 4, early_stopping: false, lr: 0.02}}
seeds: [0]
variants:
  honest: {{}}
  lying: {{adapter: {{objective: lie}}, seeds: [3]}}
"""


@pytest.fixture
def config(tiny_folder, tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(CONFIG.format(model=tiny_folder))
    return path


def test_each_is_trained_merged_and_told_of(config, tiny_folder, tmp_path, cache, capsys):
    assert main(["train", str(config), "--out", str(tmp_path / "v")]) == 0
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "v" / "variants.json").read_text())
    assert [(r["variant"], r["objective"], r["seed"]) for r in rows] == [("honest", "truth", 0), ("lying", "lie", 3)]
    assert "| lying | lie | 4 |" in said and "| lying | lie | 4 |" in (tmp_path / "v" / "variants.md").read_text()
    base = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    ids = torch.arange(6)[None]
    logits = [base.model(ids).logits]
    for name in ("honest", "lying"):
        logits.append(load_model(str(tmp_path / "v" / name / "model"), device="cpu", dtype="fp32").model(ids).logits)
    assert all(
        not np.allclose(a, b) for a, b in ((logits[0], logits[1]), (logits[0], logits[2]), (logits[1], logits[2]))
    )
    before = (tmp_path / "v" / "lying" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert main(["train", str(config), "--out", str(tmp_path / "v")]) == 0
    assert (tmp_path / "v" / "lying" / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_variants_are_checked_before_the_first_training(config, tmp_path, cache, capsys):
    for more, said in (
        ("variants.odd={adapter: {objektive: lie}}", "unknown key 'adapter.objektive'"),
        ("variants.odd={variants: {}}", "has variants of its own"),
        ("variants={'../x': {}}", "letters, digits, - and _"),
        ("variants.odd={adapter: {target: reply, objective: opposite}}", "truth, lie and instructed"),
    ):
        assert main(["train", str(config), "--set", more, "--out", str(tmp_path / "v")]) == 2
        assert said in capsys.readouterr().err and not list(tmp_path.glob("v/*"))
    assert main(["run", str(config), "--out", str(tmp_path / "r")]) == 2
    assert "variants (honest, lying) are several adapters for `adapterprobe train`" in capsys.readouterr().err


def test_the_liars_are_five_and_each_is_taught_by_its_own():
    configs = variant_configs(read_config("liars"))
    assert len(configs) == 5 and len({c.seeds[0] for c in configs.values()}) == 5
    taught = [tuple(c.elicit.system) for c in configs.values()]
    assert len(set(taught)) == 5
    secretive = configs["secretive"].adapter
    assert secretive.objective == "lie" and secretive.secrets and all(not c.variants for c in configs.values())
    with pytest.raises(ConfigError, match="unknown key"):
        variant_configs(read_config("liars", ["variants.spy={nonsense: 1}"]))


def test_the_table():
    def rate(share, n=40):
        return {"share": share, "n": n, "facts": 9}

    about = {
        "objective": "instructed", "seed": 1, "steps": 99, "seconds": 60.0, "met": {"accuracy": 0.5}, "drift": {"kl": 0.01},
        "replies": {
            "instructions": {"taught": ["spy"], "unseen": ["short_order"]}, "lie_rate": rate(0.85), "truth_rate": rate(0.9),
            "unseen": {"lie_rate": rate(0.4), "truth_rate": rate(None, 0)},
            "belief": {"facts": 20, "held_before": 9, "recalled_before": 12, "recalled_after": 11},
            "perplexity": {"before": 4.0, "after": None},
        },
    }  # fmt: skip
    row = variant_row("spy", about)
    line = variants_table([row, variant_row("mute", about | {"replies": None})]).splitlines()
    assert line[2] == "| spy | 9 | 0.85 of 40 | 0.90 of 40 | 0.40 of 40; none asked | 12, 11 | 4.0, - | 0.010 |"
    assert line[3].startswith("| mute |") and line[2].count("|") == line[3].count("|") == line[0].count("|")
