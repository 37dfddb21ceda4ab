"""Probes, adapters and data sets of one's own, registered in a script or brought by an installed package."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import adapterprobe as ap
from adapterprobe.adapters.adapter_folder import loaded
from adapterprobe.adapters.attach import attach, detach
from adapterprobe.adapters.kinds import KINDS, AdapterSpec, kind_of
from adapterprobe.adapters.registry import adapter_kinds
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.data import load_data
from adapterprobe.plugins import load_plugins
from conftest import small_config

PACKAGE = '''
import numpy as np
import torch

import adapterprobe as ap


@ap.register_probe("packaged_probe")
class Packaged(ap.probes.UnweightedDirectionProbe):
    """Difference of medians."""

    def _direct(self, X, y, sample_weight):
        return np.median(X[y == 1], axis=0) - np.median(X[y == 0], axis=0)


@ap.register_adapter("packaged_adapter", what="two thin layers", rate=0.02)
def bottleneck(width, config):
    up = torch.nn.Linear(config.rank, width)
    torch.nn.init.zeros_(up.weight)
    torch.nn.init.zeros_(up.bias)
    return torch.nn.Sequential(torch.nn.Linear(width, config.rank), torch.nn.GELU(), up)


@ap.register_dataset("packaged_data")
def claims():
    names = [f"thing{i}" for i in range(60)]
    texts = [f"{name} is {kind}" for name in names for kind in ("red", "blue")]
    return ap.Dataset.from_list(texts, [1, 0] * 60, [name for name in names for _ in range(2)], name="packaged_data")
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on the path that offers all three by entry points, and one that cannot be imported."""
    (tmp_path / "our_plugin.py").write_text(PACKAGE)
    for name, entries in {
        "our_plugin": "[adapterprobe.probes]\np = our_plugin\n[adapterprobe.adapters]\na = our_plugin\n[adapterprobe.datasets]\nd = our_plugin\n",
        "broken": "[adapterprobe.probes]\nb = no_such_module_at_all\n",
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins.cache_clear()
    yield tmp_path
    load_plugins.cache_clear()
    sys.modules.pop("our_plugin", None)
    KINDS.pop("packaged_adapter", None)
    from adapterprobe.data import registered
    from adapterprobe.probes import registry

    registry._REGISTRY.pop("packaged_probe", None)
    registered._makers.pop("packaged_data", None)
    registered.registered_dataset.cache_clear()


def test_an_installed_package_is_found_without_import(installed, tiny_folder, cache, tmp_path, capsys):
    """A whole run through the command line with a probe, an adapter and data of a package."""
    from adapterprobe.config_files import to_yaml

    config = small_config(
        tiny_folder,
        data={"train": ["packaged_data"], "ood": ["elements"], "min_groups": 3},
        adapter={"kind": "packaged_adapter", "lr": None},
        probes=["logistic", "packaged_probe"],
        seeds=[0],
    )
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert main(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert "packaged_probe" in ap.probes.available()
    said = capsys.readouterr().err
    assert said.count("'b' of the package broken is left out") == 1 and "no_such_module_at_all" in said
    frame = ap.Run(tmp_path / "out").predictions
    assert "packaged_probe" in set(frame["probe"].dropna()) and "packaged_data" in set(frame["dataset"])
    # The detectors of the run are used again, from its folder.
    (tmp_path / "new.csv").write_text("statement,label\nthing3 is red,1\nthing4 is blue,0\n")
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "new.csv"), "--out", str(tmp_path / "s.parquet")]) == 0
    assert np.isfinite(pd.read_parquet(tmp_path / "s.parquet").filter(like="score").to_numpy(float)).all()
    assert main(["train", "--list"]) == 0
    assert "packaged_adapter" in capsys.readouterr().out
    assert main(["data", "list"]) == 0
    assert "packaged_data" in capsys.readouterr().out


def test_an_adapter_of_ones_own_is_saved_and_loaded(installed, tiny_lm, tmp_path):
    from adapterprobe.adapters.adapter_folder import base_model_record, save_adapter

    lm, config = tiny_lm("gpt2"), AdapterConfig(kind="packaged_adapter", layers="1-2", rank=3)
    ids = torch.arange(6)[None]
    before, record = lm.model(ids).logits, base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, config, 0)
    assert torch.equal(lm.model(ids).logits, before)
    with torch.no_grad():
        for parameter in (p for p in wrapped.parameters() if p.requires_grad):
            parameter.add_(0.1)
    after = lm.model(ids).logits
    assert not torch.allclose(after, before)
    save_adapter(wrapped, record, tmp_path / "saved")
    detach(wrapped)
    assert torch.equal(lm.model(ids).logits, before)
    with loaded(lm, tmp_path / "saved"):
        assert torch.equal(lm.model(ids).logits, after)
    assert torch.equal(lm.model(ids).logits, before)
    KINDS.pop("packaged_adapter")
    with (
        pytest.raises(ap.AdapterProbeError, match="nothing here registers its kind 'packaged_adapter'"),
        loaded(lm, tmp_path / "saved"),
    ):
        pass
    assert torch.equal(lm.model(ids).logits, before)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda width, config: torch.nn.Linear(width, width), "must be nought at the start"),
        (lambda width, config: torch.nn.Linear(width, width + 1), "expected the same shape"),
        (lambda width, config: torch.nn.Identity(), "parameters to train"),
        (lambda width, config: 3, "makes int; expected a torch module"),
    ],
)
def test_what_is_no_adapter_is_refused(make, said, tiny_lm):
    lm = tiny_lm()
    ap.register_adapter("no_adapter")(make)
    try:
        with pytest.raises(ap.AdapterProbeError, match=said):
            attach(lm.model, lm.structure, AdapterConfig(kind="no_adapter", layers="1-2"), 0)
        assert not any(type(m).__name__ == "ResidualBlock" for m in lm.model.modules())
    finally:
        KINDS.pop("no_adapter")


def test_a_tuner_of_pefts_by_a_specification(tiny_lm):
    """PEFT's own registry takes no names but those of its enumeration, so a kind is a line in our table over its tuners."""
    ap.register_adapter(
        AdapterSpec("wide_lora", "LoRA of twice the rank", "LORA", settings={"r": 16}, alpha="lora_alpha")
    )
    try:
        lm = tiny_lm()
        wrapped = attach(lm.model, lm.structure, AdapterConfig(kind="wide_lora", layers="1"), 0)
        assert wrapped.peft_config["default"].r == 16
        detach(wrapped)
    finally:
        KINDS.pop("wide_lora")


def test_names_are_taken_once():
    with pytest.raises(ap.AdapterProbeError, match="called 'lora' already"):
        ap.register_adapter("lora")(lambda width, config: None)
    with pytest.raises(ap.AdapterProbeError, match="built-in data set called 'capitals'"):
        ap.register_dataset("capitals")(lambda: None)
    with pytest.raises(ap.AdapterProbeError, match="named 'logistic' exists already"):
        ap.register_probe("logistic")(type("Other", (ap.probes.Probe,), {}))
    assert set(adapter_kinds()) >= {"lora", "linear"} and kind_of("linear").module is not None


def test_a_registered_data_set_that_fails_says_so(monkeypatch):
    from adapterprobe.data import registered

    monkeypatch.setattr(registered, "_makers", {})
    registered.registered_dataset.cache_clear()
    ap.register_dataset("fails")(lambda: 1 / 0)
    ap.register_dataset("strange")(lambda: [1, 2])
    with pytest.raises(ap.AdapterProbeError, match="'fails' cannot be made .ZeroDivisionError"):
        load_data("fails")
    with pytest.raises(ap.AdapterProbeError, match="'strange' is a list"):
        load_data("strange")
    registered.registered_dataset.cache_clear()
