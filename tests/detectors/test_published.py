"""Published probes: equal scores to their own code, read without running anything."""

import enum
import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterprobe.cli import main
from adapterprobe.detectors.detector import Detector
from adapterprobe.detectors.published import read_checkpoint
from adapterprobe.errors import CacheError
from adapterprobe.models import load_model

WIDTH = 32


def state_of(kind, rng):
    def draw(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    scale = {"dataset_mean": draw(WIDTH), "dataset_std": draw(WIDTH).abs() + 0.5, "threshold": torch.tensor(0.3)}
    return {
        "dim": {"direction": draw(WIDTH), "threshold": torch.tensor(0.3)},
        "lr": {"linear.weight": draw(1, WIDTH), "linear.bias": draw(1), **scale},
        "mlp": {
            "net.0.weight": draw(8, WIDTH), "net.0.bias": draw(8), "net.2.weight": draw(1, 8), "net.2.bias": draw(1), **scale
        },
    }[kind]  # fmt: skip


@pytest.fixture
def legacy(monkeypatch):
    """The class by the name under which published checkpoints hold it."""
    module = types.ModuleType("deception.detectors.utils.types")
    for parent in ("deception", "deception.detectors", "deception.detectors.utils"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = enum.Enum(
        "ProbeArchitecture",
        {"A": "dim", "B": "lr", "C": "mlp"},
        type=str,
        module=module.__name__,
        qualname="ProbeArchitecture",
    )
    module.ProbeArchitecture = found
    return found


def saved(path, kind, named, layer=2, **more):
    torch.save(
        {
            "state_dict": state_of(kind, np.random.default_rng(5)),
            "hyperparams": {"probe_architecture": named, "layer": layer, **more},
        },
        path,
    )
    return path


@pytest.mark.parametrize("kind", ["dim", "lr", "mlp"])
def test_scores_are_their_own(kind, legacy, tmp_path):
    theirs = pytest.importorskip("lie_detectors")
    path = saved(tmp_path / "p.pt", kind, legacy(kind), train_dataset="dyl")
    X = np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
    own = theirs.load_probe(path) if hasattr(theirs, "load_probe") else theirs.loading.load_probe(path)
    found = read_checkpoint(path)
    with torch.no_grad():
        wanted = own(torch.tensor(X)).numpy()
    np.testing.assert_allclose(found.probe().decision_function(X), wanted, atol=1e-4, rtol=1e-5)
    assert found.layer == own.layer == 2 and found.threshold == pytest.approx(float(own.threshold))
    assert found.hyperparameters["train_dataset"] == "dyl"


def test_nothing_in_a_checkpoint_runs(legacy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    bad = tmp_path / "bad.pt"
    torch.save({"state_dict": {}, "hyperparams": {"probe_architecture": legacy("lr"), "x": Bomb()}}, bad)
    with pytest.raises(CacheError, match="holds more than weights"):
        read_checkpoint(bad)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CacheError, match="is not read"):
        read_checkpoint(tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


def test_as_a_detector(legacy, tiny_folder, tmp_path, capsys):
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    tokenizer.save_pretrained(tmp_path / "m")
    path = saved(tmp_path / "p.pt", "lr", legacy("lr"))
    argv = ["import", str(path), "--model", str(tmp_path / "m"), "--dtype", "fp32"]
    assert main([*argv, "--out", str(tmp_path / "d")]) == 0
    lm = load_model(str(tmp_path / "m"), device="cpu", dtype="fp32")
    d = Detector.load(tmp_path / "d", lm)
    talk = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "It is Anna."}]
    assert d.golden.level == "equal" and d.golden.rows == 20
    table = d.score([talk])
    ids = lm.tokenizer("<user>Who is it?<eos><assistant>It is Anna.", add_special_tokens=False).input_ids
    start = len(lm.tokenizer("<user>Who is it?<eos><assistant>", add_special_tokens=False).input_ids)
    state = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, start:].mean(0)
    wanted = read_checkpoint(path).probe().predict_proba(state.detach().numpy()[None])[0, 1]
    assert table["score"][0] == pytest.approx(wanted, abs=1e-5) and table["probability"].isna().all()
    assert table["decision"][0] == (wanted > 1 / (1 + np.exp(-0.3)))
    assert len(d.tokens(talk)) == len(ids) - start
    capsys.readouterr()
    for more, said in (
        (["--layer", "99"], "has the states 0 to"),
        (["--pool", "median"], "rolling:N"),
    ):
        assert main([*argv, *more, "--out", str(tmp_path / "e")]) == 2 and said in capsys.readouterr().err
    assert main([*argv, "--out", str(tmp_path / "d")]) == 2 and "is not empty" in capsys.readouterr().err
    assert (
        main(["import", str(tmp_path / "no.pt"), "--out", str(tmp_path / "e")]) == 2
        and "there is no file" in capsys.readouterr().err
    )


def test_what_is_no_such_checkpoint(legacy, tmp_path):
    for content, said in (
        ({"a": 1}, "has no 'state_dict'"),
        ({"state_dict": {}, "hyperparams": {"probe_architecture": "svm"}}, "kind of probe is 'svm'"),
        ({"state_dict": {"x": torch.ones(2)}, "hyperparams": {"probe_architecture": "dim"}}, "has the tensors direction, threshold, got x"),
        (
            {"state_dict": {"direction": torch.full((3,), float("nan")), "threshold": torch.tensor(0.0)}, "hyperparams": {"probe_architecture": "dim"}},
            "no numbers",
        ),
    ):  # fmt: skip
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(CacheError, match=said):
            read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "j.pt").write_text(json.dumps({}))
    with pytest.raises(CacheError, match="is not read"):
        read_checkpoint(tmp_path / "j.pt")
