"""Loading: every source, and one clear error for what cannot be loaded."""

import shutil

import pytest
import torch

from adapterprobe.cache import entry
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models import gguf as gguf_module
from adapterprobe.models import load_model
from adapterprobe.models.hardware import pick_device, pick_dtype
from adapterprobe.models.load import model_fingerprint


def test_local_folder(tiny_folder):
    lm = load_model(str(tiny_folder), dtype="fp32", device="cpu")
    assert lm.dtype == torch.float32 and lm.structure.n_layers == 4 and lm.context_length == 512
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())
    assert lm.fingerprint == load_model(str(tiny_folder), dtype="fp32", device="cpu").fingerprint
    assert lm.fingerprint != load_model(str(tiny_folder), dtype="bf16", device="cpu").fingerprint


def test_the_default_goes_by_its_name(tiny_folder, tmp_path, monkeypatch):
    """So that it can be named where another model is the first one; a folder of that name comes before it."""
    from adapterprobe.models import load

    monkeypatch.setattr(load, "default_gguf", lambda: "the package's file")
    monkeypatch.setattr(load, "converted", lambda path: f"converted {path}")
    default = (load.DEFAULT_NAME, "converted the package's file")
    assert load._resolve(None) == load._resolve(load.DEFAULT_NAME) == default
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, load.DEFAULT_NAME)
    assert load._resolve(load.DEFAULT_NAME)[1] != default[1]


def test_fingerprint_sees_one_weight(tiny_lm):
    lm = tiny_lm()
    before = model_fingerprint(lm.model, lm.tokenizer)
    with torch.no_grad():
        lm.model.model.layers[2].mlp.up_proj.weight[0, 0] += 1e-3
    assert model_fingerprint(lm.model, lm.tokenizer) != before


def test_folder_without_weights(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_model(str(tmp_path / "m"))
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("./nowhere", "no model folder or file"),
        ("/no/such/place", "no model folder or file"),
        ("owner/absent", "tried as a hub id"),
    ],
)
def test_no_such_model(name, match, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=match):
        load_model(name)


def test_not_a_model_file(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ModelError, match=r"not a \.gguf"):
        load_model(str(tmp_path / "x.txt"))


def test_truncated_gguf(tmp_path, cache):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="cannot read .* as a GGUF model"):
        load_model(str(tmp_path / "broken.gguf"))
    assert not list((cache / "models").glob("*[!kt]")), "nothing is left that looks finished"


def test_absent_default_package(monkeypatch):
    monkeypatch.setattr(gguf_module, "DEFAULT_WHEEL", "no-such-package-at-all")
    with pytest.raises(ModelError, match="no model to be had.*pip install"):
        load_model()


def test_truncated_default_package(tmp_path, monkeypatch):
    folder = tmp_path / "tiny_wheel-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1\n")
    (folder / "RECORD").write_text("tiny/model.gguf,,1000\n")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gguf_module, "DEFAULT_WHEEL", "tiny-wheel")
    with pytest.raises(ModelError, match="4 bytes where its package says 1000"):
        load_model()


def test_unknown_device_and_dtype():
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not available"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="no dtype 'int3'"):
        pick_dtype("int3", torch.device("cpu"))
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_damaged_cache_entry_is_named_and_made_again(cache):
    notices = []
    made = []

    def make(folder):
        made.append(1)
        (folder / "data").write_bytes(b"x" * 100)

    folder = entry("kind", "key", make)
    assert entry("kind", "key", make) == folder and len(made) == 1
    for damage in (b"x" * 50, b"y" * 100):
        (folder / "data").write_bytes(damage)
        entry("kind", "key", make, notice=notices.append)
    (folder / "data").unlink()
    entry("kind", "key", make, notice=notices.append)
    assert len(made) == 4 and len(notices) == 3
    assert "has 50 bytes, 100 were written" in notices[0] and "has changed" in notices[1] and "is missing" in notices[2]


def test_interrupted_cache_entry_goes_on(cache):
    def half(folder):
        (folder / "part").write_text("half")
        raise KeyboardInterrupt

    def rest(folder):
        assert (folder / "part").read_text() == "half"
        (folder / "part").write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        entry("kind", "key", half)
    assert (entry("kind", "key", rest) / "part").read_text() == "whole"
