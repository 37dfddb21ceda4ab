"""Roles of modules, found by where their outputs go, against what each family's names say."""

import pytest
import torch

from adapterprobe.adapters.attach import target_names
from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ConfigError
from adapterprobe.models.roles import find_roles

SEPARATE = {
    "self_attn.q_proj": {"q", "attention"},
    "self_attn.k_proj": {"k", "attention"},
    "self_attn.v_proj": {"v", "attention"},
    "self_attn.o_proj": {"o", "attention"},
}
GATED = SEPARATE | {
    "mlp.gate_proj": {"mlp_in", "mlp"},
    "mlp.up_proj": {"mlp_in", "mlp"},
    "mlp.down_proj": {"mlp_out", "mlp"},
}
EXPECTED = {
    "llama": GATED,
    "qwen2": GATED,
    "mistral": GATED,
    "gemma3_text": GATED,
    "phi": {
        **{name: roles for name, roles in SEPARATE.items() if "o_proj" not in name},
        "self_attn.dense": {"o", "attention"},
        "mlp.fc1": {"mlp_in", "mlp"},
        "mlp.fc2": {"mlp_out", "mlp"},
    },
    "gpt_neox": {
        "attention.query_key_value": {"q", "k", "v", "attention"},
        "attention.dense": {"o", "attention"},
        "mlp.dense_h_to_4h": {"mlp_in", "mlp"},
        "mlp.dense_4h_to_h": {"mlp_out", "mlp"},
    },
    "gpt2": {
        "attn.c_attn": {"q", "k", "v", "attention"},
        "attn.c_proj": {"o", "attention"},
        "mlp.c_fc": {"mlp_in", "mlp"},
        "mlp.c_proj": {"mlp_out", "mlp"},
    },
}


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_roles(family, tiny_lm):
    lm = tiny_lm(family)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = lm.model(ids).logits
    found = find_roles(lm.model, lm.structure)
    for index in range(4):
        prefix = f"{lm.structure.blocks_path}.{index}."
        mine = {name.removeprefix(prefix): set(roles) for name, roles in found.items() if name.startswith(prefix)}
        assert mine == EXPECTED[family]
    assert torch.equal(lm.model(ids).logits, before), "nothing is left behind"


def test_names_that_say_nothing(tiny_lm):
    """A llama whose key is called a query is not fooled."""
    lm = tiny_lm("llama")
    for block in lm.structure.blocks:
        attention = block.self_attn
        attention.q_proj, attention.o_proj = attention.q_proj, attention.o_proj
        attention.add_module("zzz", attention.k_proj)
        attention.forward = _renamed(attention)
        del attention._modules["k_proj"]
    found = find_roles(lm.model, lm.structure)
    assert found["model.layers.0.self_attn.zzz"] == {"k", "attention"}


def _renamed(attention):
    plain = attention.forward

    def forward(*args, **kwargs):
        attention.__dict__["k_proj"] = attention._modules["zzz"]
        return plain(*args, **kwargs)

    return forward


def test_targets_by_role_and_by_name(tiny_lm):
    def names(family, *modules):
        lm = tiny_lm(family)
        found = target_names(lm.model, lm.structure, AdapterConfig(layers="last:1", modules=list(modules)))
        return [name.split(".3.")[1] for name in found]

    assert names("llama", "q", "v") == ["self_attn.q_proj", "self_attn.v_proj"]
    assert names("llama", "o", "down_proj") == ["self_attn.o_proj", "mlp.down_proj"]
    assert names("gpt2", "q") == ["attn.c_attn"]
    assert names("phi", "mlp_out") == ["mlp.fc2"]
    assert names("gpt_neox", "attention") == ["attention.query_key_value", "attention.dense"]
    with pytest.raises(ConfigError, match="no module 'mlp_up' .*roles are q, k, v, o, attention, mlp_in, mlp_out, mlp"):
        names("llama", "mlp_up")
