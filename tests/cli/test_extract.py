"""`adapterprobe extract`: states that are those of the text that stands beside them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterprobe import hidden
from adapterprobe.adapters import attach
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.models import load_model

BASE = ["--dtype", "fp32", "--device", "cpu", "--shots", "2"]


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    lm = load_model(str(tiny_folder), dtype="fp32")
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="2-3", rank=4), 0)
    for name, parameter in wrapped.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def expected(folder, table, layer, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text, tokens in zip(table["text"], table["tokens"], strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert ids[0].tolist() == list(tokens)
        with torch.no_grad():
            rows.append(model(ids, output_hidden_states=True).hidden_states[layer][0, -1].numpy())
    return np.stack(rows)


def test_states_belong_to_the_text(tiny_folder, adapter, tmp_path, cache, capsys):
    argv = ["extract", "--model", str(tiny_folder), "--data", "capitals", "--layers", "1-3", "--limit", "20", *BASE]
    assert main([*argv, "--out", str(tmp_path / "off"), "--fidelity"]) == 0
    shown = capsys.readouterr().out
    assert "20 prompts, layers 1 to 3 (3), width 32, fp32" in shown
    gaps = [float(x) for x in re.findall(r"\d\.\de-\d+", shown)]
    assert len(gaps) == 2 and max(gaps) < 1e-3, "fp32: engine against plain alone"
    assert main([*argv, "--out", str(tmp_path / "on"), "--adapter", str(adapter)]) == 0
    for name, folder in (("off", None), ("on", adapter)):
        table = pd.read_parquet(tmp_path / name / "prompts.parquet")
        assert list(table.columns[:2]) == ["prompt_id", "text"] and len(table) == 20
        states = hidden.open(tmp_path / name)
        for layer in (1, 3):
            plain = expected(tiny_folder, table, layer, folder)
            assert np.abs(states.layer(layer) - plain).max() <= 1e-3 * np.abs(plain).max()
    off, on = (hidden.open(tmp_path / name) for name in ("off", "on"))
    assert np.array_equal(off.layer(2), on.layer(2)) and not np.allclose(off.layer(3), on.layer(3), atol=1e-2)


def test_again_and_into_a_foreign_folder(tiny_folder, tmp_path, cache, capsys, monkeypatch):
    argv = ["extract", "--model", str(tiny_folder), "--data", "elements", "--limit", "8", *BASE, "--out"]
    assert main([*argv, str(tmp_path / "x")]) == 0
    monkeypatch.setattr("adapterprobe.pipeline.extract.load_model", lambda **k: pytest.fail("nothing is to be done"))
    assert main([*argv, str(tmp_path / "x")]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "x"), "--seed", "1"]) == 2
    assert "another extraction" in capsys.readouterr().err
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "thesis.txt").write_text("mine")
    assert main([*argv, str(tmp_path / "y")]) == 2
    assert "holds no extraction of ours" in capsys.readouterr().err
    monkeypatch.undo()
    (tmp_path / "x" / "states.bin").unlink()
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(cache))
    assert main([*argv, str(tmp_path / "x")]) == 0
    assert hidden.open(tmp_path / "x").layer(0).shape == (8, 32)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--layers", "9"], "from 0 to 4"),
        (["--adapter", "nowhere"], "adapter_config.json is missing"),
        (["--limit", "0"], "limit of at least 1"),
        (["--shots", "0", "--condition", "lie"], "conveyed by demonstrations"),
        (["--data", "capitols"], "did you mean 'capitals'"),
        (["--format", "chat"], "no chat template"),
    ],
)
def test_bad_input(more, match, tiny_folder, tmp_path, cache, capsys):
    argv = ["extract", "--model", str(tiny_folder), "--data", "capitals", *BASE, "--out", str(tmp_path / "x"), *more]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert match in err and err.count("\n") == 1


def test_an_adapter_that_is_no_change_of_layers(tiny_folder, tmp_path, cache, capsys):
    from peft import PromptTuningConfig, get_peft_model

    lm = load_model(str(tiny_folder), dtype="fp32")
    get_peft_model(lm.model, PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "p"
    )
    argv = ["extract", "--model", str(tiny_folder), "--data", "capitals", "--limit", "4", *BASE]
    assert main([*argv, "--adapter", str(tmp_path / "p"), "--out", str(tmp_path / "a")]) == 2
    assert "adapts no layer" in capsys.readouterr().err


def test_an_adapter_of_another_model(tiny_folder, adapter, tmp_path, cache, capsys):
    argv = ["extract", "--model", str(tiny_folder), "--data", "capitals", "--limit", "4", *BASE]
    settings = json.loads((adapter / "adapter_config.json").read_text())
    elsewhere = [name.replace("layers.3", "layers.1") for name in settings["target_modules"]]
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": elsewhere}))
    assert main([*argv, "--adapter", str(adapter), "--out", str(tmp_path / "a")]) == 2
    assert "does not fit the model" in capsys.readouterr().err
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"r": 3}))
    assert main([*argv, "--adapter", str(adapter), "--out", str(tmp_path / "b")]) == 2
    assert "does not fit the model" in capsys.readouterr().err


def claims_file(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "claims.csv", index=False)
    return str(folder / "claims.csv")


def test_rows_come_out_as_they_went_in(tiny_folder, tmp_path, cache, capsys):
    """In their order, repeats and more of one class than of the other among them, with all their columns."""
    rows = [
        {
            "id": f"r{i}",
            "statement": f"The stone {i % 17} is blue.",
            "label": int(i % 3 == 0),
            "note": i * 0.5,
            "text": "mine",
        }
        for i in range(20)
    ]
    path = claims_file(tmp_path, rows)
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        path,
        "--dtype",
        "fp32",
        "--shots",
        "0",
        "--template",
        "{Statement}?",
    ]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0, capsys.readouterr().err
    assert "left out" not in capsys.readouterr().err
    table = pd.read_parquet(tmp_path / "s" / "prompts.parquet")
    assert table["row"].tolist() == list(range(20)) and table["line"].tolist() == list(range(2, 22))
    source = pd.read_csv(path)
    for name in ("id", "statement", "label", "note"):
        assert table[name].astype(str).tolist() == source[name].astype(str).tolist()
    assert table["source_text"].tolist() == ["mine"] * 20, "a column of theirs with a name of ours"
    assert table["text"].str.contains("The stone 2 is blue\\?").sum() == 2
    states = hidden.open(tmp_path / "s").layer(2)
    assert np.allclose(states[0], states[17], atol=1e-5) and not np.allclose(states[0], states[1], atol=1e-3)


def test_what_is_left_out_is_said(tiny_folder, tmp_path, cache, capsys):
    rows = [{"statement": f"The stone {w}{i} is blue", "label": i % 2} for i in range(40) for w in ("a", "b")]
    path = claims_file(tmp_path, rows)
    argv = ["extract", "--model", str(tiny_folder), "--data", path, "--dtype", "fp32", "--shots", "2", "--limit", "20"]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    told = capsys.readouterr().err
    assert "2 demonstrations come from" in told and "the first 20 of" in told
    table = pd.read_parquet(tmp_path / "s" / "prompts.parquet")
    assert table["row"].is_monotonic_increasing and (table.groupby("row").size() == 2).all(), (
        "truth and lie of each row"
    )


def test_a_text_exactly_as_it_is(tiny_folder, tmp_path, cache):
    rows = [{"statement": f"The Stone {i} Is Blue.", "label": i % 2} for i in range(12)]
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        claims_file(tmp_path, rows),
        "--dtype",
        "fp32",
        "--shots",
        "0",
        "--template",
        "So: {statement}",
    ]
    texts = {}
    for name, more in (("exact", ["--exact"]), ("usual", [])):
        assert main([*argv, *more, "--out", str(tmp_path / name)]) == 0
        texts[name] = pd.read_parquet(tmp_path / name / "prompts.parquet")["text"].iloc[3]
    assert "So: The Stone 3 Is Blue." in texts["exact"] and "So: the Stone 3 Is Blue\n" in texts["usual"]


def test_one_class_alone_can_be_extracted(tiny_folder, tmp_path, cache):
    rows = [{"statement": f"The stone {i} is blue", "label": 1} for i in range(12)]
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        claims_file(tmp_path, rows),
        "--dtype",
        "fp32",
        "--shots",
        "0",
    ]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    assert len(pd.read_parquet(tmp_path / "s" / "prompts.parquet")) == 12


def test_columns_of_any_kind_are_kept(tiny_folder, tmp_path, cache):
    """Found before any pass: what a table cannot hold as it is becomes text."""
    lines = []
    for i in range(12):
        row = {
            "statement": f"The stone {i} is blue",
            "label": i % 2,
            "text": f"T{i}",
            "source_text": f"S{i}",
            "big": 10**30,
            "mixed": [True, 1, 1.5, "a"][i % 4],
            "list": [i],
        }
        lines.append(json.dumps(row | {"odd": "\ud800"}))
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        str(tmp_path / "x.jsonl"),
        "--dtype",
        "fp32",
        "--shots",
        "0",
        "--out",
        str(tmp_path / "s"),
    ]
    assert main(argv) == 0
    table = pd.read_parquet(tmp_path / "s" / "prompts.parquet")
    assert table["source_source_text"].tolist() == [f"T{i}" for i in range(12)] and table["source_text"].tolist() == [
        f"S{i}" for i in range(12)
    ]
    assert (
        table["big"].iloc[0] == str(10**30)
        and table["list"].iloc[3] == "[3]"
        and table["mixed"].tolist()[:4] == ["true", "1", "1.5", "a"]
    )
    assert table["odd"].iloc[0] == r"\ud800"
