"""A reply that is written a token at a time is the one that `generate` writes by itself, in every family."""

from contextlib import contextmanager

import pytest
import torch

from adapterprobe.errors import DataError
from adapterprobe.generation.token_by_token import token_by_token
from conftest import SEVERAL

PROMPT = [5, 9, 11, 40, 41, 42, 43, 44, 45, 46, 301, 17, 200, 77, 88, 91, 100, 12]
"""Longer than the window of the families that slide."""
LAYER = 2


@SEVERAL
@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 20},
        {"max_new_tokens": 20, "do_sample": True, "temperature": 1.7, "top_p": 0.8, "repetition_penalty": 1.2},
        {"max_new_tokens": 6, "min_new_tokens": 6},
        {"max_length": len(PROMPT) + 4},
    ],
)
def test_the_tokens_and_states_are_those_of_generate(tiny_lm, family, options):
    lm = tiny_lm(family)
    states, fed = [], []

    @contextmanager
    def reading(token):
        fed.append(token)
        block = lm.structure.blocks[LAYER - 1]
        hook = block.register_forward_hook(
            lambda _m, _i, out: states.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        yield
        hook.remove()

    torch.manual_seed(4)
    written = list(token_by_token(lm, PROMPT, [0], reading, **options))
    ids = torch.tensor([PROMPT])
    torch.manual_seed(4)
    alone = lm.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=0, **options)
    wanted = [token for token in alone[0, len(PROMPT) :].tolist() if token != 0]
    assert written == wanted == fed and written
    whole = lm.model(torch.tensor([[*PROMPT, *written]]), output_hidden_states=True).hidden_states[LAYER]
    torch.testing.assert_close(torch.stack(states), whole[0, len(PROMPT) :], atol=1e-4, rtol=1e-4)


def test_a_model_that_keeps_nothing_is_refused(tiny_lm):
    lm = tiny_lm()
    with pytest.raises(DataError, match="use_cache=False: what is watched"):
        token_by_token(lm, PROMPT, [0], lambda token: contextmanager(lambda: (yield))(), use_cache=False)
    forgets = lm.model.forward

    def forward(*args, **kwargs):
        outputs = forgets(*args, **kwargs)
        outputs["past_key_values"] = None
        return outputs

    lm.model.forward = forward
    with pytest.raises(DataError, match="keeps no keys and values"):
        next(token_by_token(lm, PROMPT, [0], lambda token: contextmanager(lambda: (yield))(), max_new_tokens=3))
