"""Parts of a decoder are found by structure."""

import pytest

from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models import find_structure
from adapterprobe.models.layers import parse_blocks, parse_layers, parse_states
from conftest import FAMILIES, SEVERAL, tiny

NORMS = {
    "llama": "model.norm", "phi": "model.final_layernorm", "gpt_neox": "gpt_neox.final_layer_norm",
    "gpt2": "transformer.ln_f", "qwen2": "model.norm", "gemma3_text": "model.norm", "mistral": "model.norm",
}  # fmt: skip
LINEAR = {"llama": 7, "phi": 6, "gpt_neox": 4, "gpt2": 4, "qwen2": 7, "gemma3_text": 7, "mistral": 7}
BIASED = {"phi", "gpt_neox", "gpt2", "qwen2"}


@SEVERAL
def test_structure(family):
    model = tiny(family)
    structure = find_structure(model)
    assert structure.n_layers == 4 and structure.width == 32
    assert structure.final_norm_path == NORMS[family]
    assert structure.final_norm is model.get_submodule(NORMS[family])
    assert structure.head is model.get_output_embeddings()
    names = structure.linear_names([1, 2])
    assert len(names) == 2 * LINEAR[family]
    assert all(model.get_submodule(name) is module for name, module in names.items())
    assert bool(structure.biases()) == (family in BIASED)
    assert all(name in dict(model.named_parameters()) for name in structure.biases())


def test_every_family_is_covered():
    assert set(NORMS) == set(FAMILIES)


def test_no_blocks_is_said():
    model = tiny("llama")
    model.config.num_hidden_layers = 9
    with pytest.raises(ModelError, match="no list of 9 decoder blocks"):
        find_structure(model)


@pytest.mark.parametrize("spec", ["40", "x", "last:", "5-", "", "0-99"])
def test_bad_layers(spec):
    with pytest.raises(Exception, match="layer"):
        parse_layers(spec, 0, 9)


def test_blocks_and_states_are_told_apart():
    """An adapter sits in blocks, a probe reads states; whoever confuses them is told how both are counted."""
    with pytest.raises(
        ConfigError, match="no block 30; blocks go from 0 to 29 .last block = 29, its output = state 30"
    ):
        parse_blocks("30", 30)
    with pytest.raises(ConfigError, match="no hidden state 31; states go from 0 to 30 .last block = 29, its output"):
        parse_states("31", 30)
    assert parse_states("30", 30) == [30] and parse_blocks("29", 30) == [29]
