"""What is refused at loading: weights that are missing, models that look ahead, streams and blocks that are not what they seem."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.engine import Engine
from adapterprobe.errors import ModelError
from adapterprobe.models import load_model
from adapterprobe.models.roles import find_roles
from conftest import FAMILIES, LLAMA, tiny

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_loads(family, tokenizer, tmp_path):
    lm = load_model(save(tiny(family), tokenizer, tmp_path / family), dtype="fp32", device="cpu")
    assert lm.structure.n_layers == 4 and lm.vocabulary == 600


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_need_not_be_in_the_file(tied, tokenizer, tmp_path):
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**LLAMA, **IDS, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    save(model, tokenizer, tmp_path / "m")
    assert load_model(str(tmp_path / "m"), dtype="fp32").vocabulary == 600
    model.model.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    if tied:
        load_model(str(tmp_path / "headless"), dtype="fp32")
    else:
        with pytest.raises(ModelError, match=r"lacks 1 of its weights \(lm_head.weight\)"):
            load_model(str(tmp_path / "headless"), dtype="fp32")


def test_renamed_and_unexpected_weights(tokenizer, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    save(tiny("llama"), tokenizer, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"nobody.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    load_model(str(tmp_path / "m"), dtype="fp32")
    assert "1 weights that its class does not use (nobody.weight)" in capsys.readouterr().err
    save_file(
        {key.replace("q_proj", "query"): value for key, value in weights.items()}, path, metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match="lacks 4 of its weights"):
        load_model(str(tmp_path / "m"), dtype="fp32")


def test_models_that_look_ahead(tokenizer, tmp_path):
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 600,
    }
    torch.manual_seed(0)
    for decoder in (True, False):
        bert = BertLMHeadModel(BertConfig(**size, is_decoder=decoder, pad_token_id=0)).eval()
        folder = save(bert, tokenizer, tmp_path / str(decoder))
        if decoder:
            assert load_model(folder, dtype="fp32").structure.n_layers == 3
        else:
            with pytest.raises(ModelError, match="looks ahead"):
                load_model(folder, dtype="fp32")
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=600,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            **IDS,
        )
    )
    with pytest.raises(ModelError, match="encoder with a decoder"):
        load_model(save(bart, tokenizer, tmp_path / "bart"), dtype="fp32")


def test_several_residual_streams(tokenizer, tmp_path):
    config = CONFIG_MAPPING["gemma3n_text"](
        **LLAMA, **IDS, head_dim=8, vocab_size_per_layer_input=600, hidden_size_per_layer_input=8, num_kv_shared_layers=0,
        laurel_rank=4, layer_types=["sliding_attention", "full_attention"] * 2, activation_sparsity_pattern=[0.0] * 4, sliding_window=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with pytest.raises(ModelError, match="several residual streams"):
        load_model(save(model, tokenizer, tmp_path / "m"), dtype="fp32")


@pytest.mark.parametrize("width", [16, 96])
def test_a_vision_tower_as_deep_as_the_text(width, tokenizer, tmp_path):
    """The text model's blocks are taken, however large the tower is."""
    vision = {
        "hidden_size": width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "image_size": 32,
        "patch_size": 8,
    }
    text = LLAMA | IDS | {"head_dim": 8, "sliding_window": 16}
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=599,
        boi_token_index=598,
        eoi_token_index=597,
    )
    torch.manual_seed(0)
    lm = load_model(save(Gemma3ForConditionalGeneration(config).eval(), tokenizer, tmp_path / "m"), dtype="fp32")
    assert "vision" not in lm.structure.blocks_path and lm.structure.width == 32


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "head_dim": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
}


@pytest.mark.parametrize("family", sorted(MIXTURES))
def test_mixtures_of_experts(family, tmp_path, tokenizer):
    """Rows are packed, roles are found, and a layer range stays one: routers are no linear maps to be adapted."""
    from adapterprobe.adapters import attach
    from adapterprobe.config import AdapterConfig

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[family](**LLAMA, **IDS, **MIXTURES[family]), dtype=torch.float32
    )
    lm = load_model(save(model, tokenizer, tmp_path / "m"), dtype="fp32", device="cpu")
    assert Engine(lm.model, lm.structure).share
    names = lm.structure.linear_names([3])
    assert names and all(".self_attn." in name for name in names)
    roles = find_roles(lm.model, lm.structure)
    assert {"q", "k", "v", "o"} <= {role for found in roles.values() for role in found}
    for modules in ("all", ["attention"]):
        wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="last:1", modules=modules, rank=2), 0)
        touched = {name for name, p in wrapped.named_parameters() if p.requires_grad}
        assert touched and all(".layers.3.self_attn." in name for name in touched)
        wrapped.unload()


def test_a_folder_that_holds_an_adapter_too(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "both")
    (tmp_path / "both" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match="holds an adapter"):
        load_model(str(tmp_path / "both"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_weak_look_ahead_is_one_too(dtype, tokenizer, tmp_path):
    """An encoder with the small weights of a fresh model, also where rounding is coarse."""
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 600,
    }
    torch.manual_seed(0)
    bert = BertLMHeadModel(BertConfig(**size, is_decoder=False, pad_token_id=0)).eval()
    with pytest.raises(ModelError, match="looks ahead"):
        load_model(save(bert, tokenizer, tmp_path / "b"), dtype=dtype, device="cpu")


def test_half_of_an_encoder_decoder(tokenizer, tmp_path):
    from transformers import BartForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    bart = BartForCausalLM(
        BartConfig(
            vocab_size=600,
            d_model=32,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=48,
            is_encoder_decoder=False,
            **IDS,
        )
    )
    with pytest.raises(ModelError, match="attention to an encoder"):
        load_model(save(bart, tokenizer, tmp_path / "bart"), dtype="fp32")
    crossed = GPT2LMHeadModel(GPT2Config(**FAMILIES["gpt2"], add_cross_attention=True, **IDS))
    with pytest.raises(ModelError, match="looks at one"):
        load_model(save(crossed, tokenizer, tmp_path / "gpt2"), dtype="fp32")


@pytest.mark.parametrize(
    ("family", "size"),
    [
        (
            "opt",
            {
                "vocab_size": 600,
                "hidden_size": 32,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "ffn_dim": 48,
                "word_embed_proj_dim": 32,
            },
        ),
        ("olmo", LLAMA),
        ("olmo2", LLAMA),
        ("stablelm", LLAMA),
        ("falcon", {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}),
        ("gpt_bigcode", {"vocab_size": 600, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}),
        ("qwen3", LLAMA | {"head_dim": 8}),
    ],
)
def test_other_decoders_load(family, size, tokenizer, tmp_path):
    """Norms that stand before the blocks, or have no weights, are no reason to refuse a model."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**size, **IDS), dtype=torch.float32)
    assert load_model(save(model, tokenizer, tmp_path / "m"), dtype="fp32", device="cpu").structure.n_layers == 4
