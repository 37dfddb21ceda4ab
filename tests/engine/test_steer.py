"""Adding a vector at answer positions, and states of tokens."""

import numpy as np
import pytest
import torch

from adapterprobe.activations import record_tokens
from adapterprobe.engine import Engine
from adapterprobe.models.blocks import find_structure
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.prompts.encoded import Encoded
from conftest import tiny

SEQUENCES = [(5, 6, 7, 8, 9), (5, 6, 7, 3, 4, 2, 8), (11, 12), (5, 6, 7, 8, 1, 2)]


def plain(model, ids, layer=None, vector=None):
    """Logits after the last token and all hidden states, the vector added there by hand."""
    blocks = find_structure(model).blocks

    def hook(module, args, output):
        states = output[0] if isinstance(output, tuple) else output
        states = states.clone()
        states[:, -1] += vector
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = blocks[layer - 1].register_forward_hook(hook) if layer else None
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    if handle:
        handle.remove()
    return found.logits[0, -1], found.hidden_states


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_steered_equals_a_hook_of_ones_own(family):
    model = tiny(family).float()
    engine = Engine(model, find_structure(model))
    vector = torch.randn(engine.structure.width, generator=torch.Generator().manual_seed(0))
    for layer in (1, 2):
        with engine.steered(layer, vector), torch.no_grad():
            for batch in engine.plan(SEQUENCES):
                for row, logits in zip(batch.rows, engine.run(batch).logits, strict=True):
                    assert torch.allclose(logits, plain(model, SEQUENCES[row], layer, vector)[0], atol=2e-4)
    with torch.no_grad():
        (batch, *_) = engine.plan(SEQUENCES)
        after = engine.run(batch).logits[0]
    assert torch.allclose(after, plain(model, SEQUENCES[batch.rows[0]])[0], atol=2e-4), "the hook is gone"


def test_what_is_recorded_is_what_was_made():
    model = tiny("llama").float()
    engine = Engine(model, find_structure(model))
    (batch, *_) = engine.plan([SEQUENCES[0]])
    vector = torch.full((engine.structure.width,), 3.0)
    with torch.no_grad():
        before = engine.run(batch).states
        with engine.steered(2, vector):
            after = engine.run(batch).states
    assert torch.equal(before[:2], after[:2]) and torch.allclose(after[2] - before[2], vector[None], atol=1e-5)


def test_states_of_tokens_are_the_plain_passs(cache):
    model = tiny("llama").float()
    engine = Engine(model, find_structure(model))
    encoded = Encoded((None,) * 4, tuple(SEQUENCES), (ChoiceTokens((1,), (2,)),) * 4)
    found = record_tokens(engine, encoded, "weights", [1, 2], 4, "test")
    for layer in (1, 2):
        states = found.layer(layer)
        assert states.shape == (4, 4, engine.structure.width)
        for row, ids in enumerate(SEQUENCES):
            expected = plain(model, ids)[1][layer][0].numpy()[-4:]
            assert np.allclose(states[row, 4 - len(expected) :], expected, atol=2e-4)
            assert not states[row, : 4 - len(expected)].any()
    engine.run = None
    assert np.array_equal(record_tokens(engine, encoded, "weights", [1], 4, "test").layer(1), found.layer(1)), "cached"
