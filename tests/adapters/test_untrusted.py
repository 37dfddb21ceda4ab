"""Adapters from anywhere: equal to PEFT in every arrangement, or refused in one line."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.adapters import adapter_merged
from adapterprobe.adapters.adapter_folder import loaded
from adapterprobe.cli import main
from adapterprobe.engine import Engine
from adapterprobe.engine.fidelity import faithful
from adapterprobe.errors import ModelError
from adapterprobe.models import load_model
from conftest import LLAMA

SEQUENCES = [[5, 9, 11, 12, 30, 31], [5, 9, 11, 12, 40], [5, 9, 11, 12, 41, 42, 43], [7, 8, 9]]


@pytest.fixture
def make(tokenizer, tmp_path):
    """(folder of a model, folder of an adapter on it)."""

    def build(tied=False, seed=0, name="m", layers=4, **settings):
        torch.manual_seed(seed)
        size = LLAMA | {"num_hidden_layers": layers}
        config = CONFIG_MAPPING["llama"](
            **size, bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=tied
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4.0)
        folder, adapter = tmp_path / name, tmp_path / f"{name}-adapter"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        torch.manual_seed(1)
        settings = {
            "r": 4,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"],
            "init_lora_weights": False,
        } | settings
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for key, value in wrapped.named_parameters():
                if "modules_to_save" in key:
                    value.add_(torch.randn_like(value))
        wrapped.peft_config["default"].base_model_name_or_path = str(folder)
        wrapped.save_pretrained(adapter)
        return folder, adapter

    return build


def answers(model) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in SEQUENCES])


def by_engine(lm, share=True) -> torch.Tensor:
    engine = Engine(lm.model, lm.structure, share)
    got = torch.empty(len(SEQUENCES), lm.structure.vocabulary)
    with torch.no_grad():
        for batch in engine.plan(SEQUENCES):
            got[list(batch.rows)] = engine.run(batch).logits
    return got


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
        {"trainable_token_indices": [9, 11]},
    ],
    ids=str,
)
def test_equal_to_peft(make, tied, share, settings):
    folder, adapter = make(tied, **settings)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    off = answers(base)
    on = answers(PeftModel.from_pretrained(base, str(adapter)).eval())
    assert (on - off).abs().max() > 0.1, "the adapter does something"
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    with loaded(lm, adapter):
        assert torch.allclose(by_engine(lm, share), on, atol=2e-4), "on"
        with adapter_merged(lm.model):
            assert torch.allclose(by_engine(lm, share), on, atol=2e-4), "merged"
            faithful(Engine(lm.model, lm.structure, share), SEQUENCES)
    assert torch.equal(answers(lm.model), off), "off, to the bit"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("saved", ["lm_head", "embed_tokens"])
def test_copies_of_whole_modules_are_merged_or_refused(make, tmp_path, capsys, tied, saved):
    folder, adapter = make(tied, modules_to_save=[saved])
    status = main(["merge", str(adapter), "--model", str(folder), "--dtype", "fp32", "--out", str(tmp_path / "out")])
    if tied:
        assert status == 2 and "cannot be merged into one model" in capsys.readouterr().err
        return
    assert status == 0
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = answers(PeftModel.from_pretrained(base, str(adapter)).eval())
    got = answers(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval())
    assert torch.allclose(got, expected, atol=1e-4)


def refuse(folder, adapter, match):
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    before = answers(lm.model)
    with pytest.raises(ModelError, match=match), loaded(lm, adapter):
        pass
    assert torch.equal(answers(lm.model), before), "left as it was"


def test_adapters_of_another_shape(make):
    folder, _ = make(name="four")
    _, six = make(name="six", layers=6)
    refuse(folder, six, "8 of its tensors have no place in this model")


def test_another_base_is_mentioned(make, capsys):
    folder, adapter = make()
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "someone/other-model"}))
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    with loaded(lm, adapter):
        pass
    assert "was trained on someone/other-model" in capsys.readouterr().err
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(folder)}))
    with loaded(lm, adapter):
        pass
    assert capsys.readouterr().err == ""


def test_replicated_blocks_and_invocation_tokens(make):
    folder, adapter = make(layer_replication=[[0, 3], [1, 4]])
    refuse(folder, adapter, "repeats blocks")
    shutil.rmtree(adapter)
    folder, adapter = make(name="a", alora_invocation_tokens=[5, 9])
    refuse(folder, adapter, "invocation tokens")


def test_whole_weights_beside_the_adapters(make):
    folder, adapter = make()
    path = adapter / "adapter_model.safetensors"
    whole = {"base_model.model.model.embed_tokens.weight": torch.zeros(600, 32)}
    save_file(load_file(path) | whole, path, metadata={"format": "pt"})
    refuse(folder, adapter, "1 whole weights of its model")


def test_keys_of_another_wrapper(make):
    folder, adapter = make()
    path = adapter / "adapter_model.safetensors"
    weights = {
        key.replace("base_model.model.", "base_model.model._orig_mod."): value for key, value in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    refuse(folder, adapter, "missing adapter keys")


def test_a_fidelity_beyond_rounding_stops(make, tmp_path, monkeypatch, capsys, cache):
    """An engine that is wrong (planted) records nothing, asked to check or not, where an adapter from outside is on."""
    folder, adapter = make()
    from adapterprobe.engine import forward

    real = forward.Engine.run

    def wrong(self, *args, **kwargs):
        output = real(self, *args, **kwargs)
        return forward.Output(output.logits * 1.1, output.states)

    argv = ["extract", "--model", str(folder), "--dtype", "fp32", "--data", "capitals", "--shots", "1", "--limit", "8"]
    assert main([*argv, "--adapter", str(adapter), "--fidelity", "--out", str(tmp_path / "fine")]) == 0
    monkeypatch.setattr(forward.Engine, "run", wrong)
    assert main([*argv, "--fidelity", "--out", str(tmp_path / "s")]) == 2
    assert "nothing is recorded" in capsys.readouterr().err
    assert main([*argv, "--adapter", str(adapter), "--out", str(tmp_path / "t")]) == 2
    assert not (tmp_path / "t" / "states.bin").exists()


@pytest.mark.parametrize(
    "settings",
    [{"bias": "lora_only"}, {"bias": "all"}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}],
    ids=str,
)
def test_what_peft_writes_into_the_model_is_put_back(settings, tokenizer, tmp_path):
    """Biases trained with an adapter, starting weights taken out of the model: on as PEFT has it, again and again; off to the bit."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING["qwen2"](**LLAMA, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    wrapped = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **settings)
    )
    with torch.no_grad():
        for value in wrapped.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.3)
    wrapped.save_pretrained(tmp_path / "a")
    on = answers(
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32), str(tmp_path / "a")
        ).eval()
    )
    lm = load_model(str(tmp_path / "m"), dtype="fp32", device="cpu")
    off = answers(lm.model)
    for _ in range(2):
        with loaded(lm, tmp_path / "a"):
            assert torch.allclose(by_engine(lm), on, atol=2e-4)
        assert torch.equal(answers(lm.model), off)


def test_whole_weights_in_a_file_of_pytorch(make):
    folder, adapter = make()
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(
        weights | {"base_model.model.model.embed_tokens.weight": torch.zeros(600, 32)}, adapter / "adapter_model.bin"
    )
    refuse(folder, adapter, "1 whole weights of its model")
    (adapter / "adapter_model.bin").write_bytes(b"not a file of tensors")
    refuse(folder, adapter, "damaged")


def test_a_module_with_children_may_be_saved_whole(make):
    folder, adapter = make(modules_to_save=["mlp"])
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    off = answers(base)
    on = answers(PeftModel.from_pretrained(base, str(adapter)).eval())
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    with loaded(lm, adapter), adapter_merged(lm.model):
        assert torch.allclose(by_engine(lm), on, atol=2e-3)
    assert torch.equal(answers(lm.model), off)


def test_a_variant_that_cannot_be_merged_stays_on(make):
    folder, adapter = make(lora_bias=True, target_modules=["q_proj"])
    on = answers(
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), str(adapter)
        ).eval()
    )
    lm = load_model(str(folder), dtype="fp32", device="cpu")
    with loaded(lm, adapter), adapter_merged(lm.model):
        assert torch.allclose(by_engine(lm), on, atol=2e-4)
