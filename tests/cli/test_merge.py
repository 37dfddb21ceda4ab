"""`adapterprobe merge`: a folder that plain transformers loads, and that says what the model says with the adapter on."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import base_model_record, loaded, save_adapter
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.models import load_model
from conftest import tiny

IDS = torch.arange(40)[None] * 7 % 600


def adapter_of(family, kind, tokenizer, folder):
    """A model in `folder`/model and an adapter of random weights for it in `folder`/adapter."""
    tiny(family).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lm = load_model(str(folder / "model"), dtype="fp32", device="cpu")
    about = base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, AdapterConfig(kind=kind, layers="1-3", rank=4), 0)
    torch.manual_seed(0)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    save_adapter(wrapped, about, folder / "adapter")


def merged(folder, *more):
    argv = ["merge", str(folder / "adapter"), "--model", str(folder / "model"), "--dtype", "fp32"]
    return main([*argv, "--out", str(folder / "merged"), *more])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama", "lora"),
        ("gpt2", "lora"),
        ("phi", "lora"),
        ("gemma3_text", "lora"),
        ("llama", "ia3"),
        ("qwen2", "pissa"),
    ],
)
def test_a_merged_model_says_what_the_adapter_says(family, kind, tokenizer, tmp_path):
    adapter_of(family, kind, tokenizer, tmp_path)
    assert merged(tmp_path) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    lm = load_model(str(tmp_path / "model"), dtype="fp32", device="cpu")
    with torch.no_grad():
        got, off = model(IDS).logits, lm.model(IDS).logits
        with loaded(lm, tmp_path / "adapter"):
            on = lm.model(IDS).logits
    assert torch.allclose(got, on, atol=1e-4 * on.abs().max())
    assert not torch.allclose(got, off, atol=1e-2 * on.abs().max())
    text = "Question: Is Paris the capital of France?"
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")(text) == tokenizer(text)


def test_at_part_of_its_strength(tokenizer, tmp_path, capsys):
    adapter_of("llama", "lora", tokenizer, tmp_path)
    assert merged(tmp_path, "--strength", "0.5") == 0
    half, base = (
        load_file(tmp_path / "merged" / "model.safetensors"),
        load_file(tmp_path / "model" / "model.safetensors"),
    )
    assert merged(tmp_path) == 2, "the whole of it is another model"
    assert "holds another merged model" in capsys.readouterr().err
    assert merged(tmp_path, "--out", str(tmp_path / "whole")) == 0
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert any((whole[name] - base[name]).abs().max() > 0.01 for name in base)
    for name in base:
        torch.testing.assert_close(2 * (half[name] - base[name]), whole[name] - base[name], atol=1e-5, rtol=1e-4)
    assert merged(tmp_path, "--strength", "nan", "--out", str(tmp_path / "no")) == 2
    assert "expected a number between -10 and 10" in capsys.readouterr().err and not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["ln_tuning", "linear", "bias"])
def test_kinds_that_cannot_be_merged_are_refused(kind, tokenizer, tmp_path, capsys):
    adapter_of("llama", kind, tokenizer, tmp_path)
    assert merged(tmp_path) == 2
    said = capsys.readouterr().err
    assert "cannot be merged into the weights" in said and "train another kind" in said
    assert [file.name for file in (tmp_path / "merged").iterdir()] == ["merged.json"], "no half of a model is left"


def test_again_and_wrongly(tokenizer, tmp_path, capsys):
    adapter_of("llama", "lora", tokenizer, tmp_path)
    assert merged(tmp_path) == 0
    weights = tmp_path / "merged" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert merged(tmp_path) == 0 and weights.stat().st_mtime_ns == before, "done already"
    assert main(["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "elsewhere")]) == 2
    assert "made for a local model called model; give its folder with --model" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "nothing"), "--out", str(tmp_path / "elsewhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 1}))
    assert merged(tmp_path) == 2, "another adapter, the same folder"
    assert "holds another merged model" in capsys.readouterr().err
