"""Replies are what transformers' own generation writes, whatever is written beside them."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from adapterprobe.engine import Engine
from adapterprobe.engine import sampling as module
from adapterprobe.engine.decoding import NAME
from adapterprobe.engine.sampling import Sampling, next_tokens, plan_writing, uniforms, write_replies
from adapterprobe.errors import ConfigError
from adapterprobe.models import find_structure
from conftest import SEVERAL, tiny

KEYS = list("abcd")


def prompts(lengths=(3, 9, 5, 1), shared=30):
    tokens = torch.Generator().manual_seed(1)
    prefix = torch.randint(1, 600, (shared,), generator=tokens).tolist()
    return [tuple(prefix + torch.randint(1, 600, (n,), generator=tokens).tolist()) for n in lengths]


def last(*args):
    *_, replies = write_replies(*args)
    return replies


@SEVERAL
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_equal_to_transformers_one_prompt_at_a_time(family, temperature):
    model = tiny(family)
    engine = Engine(model, find_structure(model))
    assert engine.share, "else both would be the same"
    sampling = Sampling(3, temperature, 0.9 if temperature else 1.0, 12, seed=5)
    got = last(engine, prompts(), KEYS, sampling, [0])
    engine.share = False
    assert got == last(engine, prompts(), KEYS, sampling, [0])
    assert len(got) == 12 and len({reply.tokens for reply in got}) > (3 if temperature else 0)
    assert NAME not in {config._attn_implementation_internal for config in engine._configs}, "the model's own is back"


def test_greedy_is_a_plain_loop_of_generate():
    model = tiny("llama")
    engine = Engine(model, find_structure(model))
    plain = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=0, pad_token_id=0, min_new_tokens=1)
    for ids, reply in zip(prompts(), last(engine, prompts(), KEYS, Sampling(1, 0.0, 1.0, 12), [0]), strict=True):
        rows = torch.tensor([ids])
        whole = model.generate(rows, attention_mask=torch.ones_like(rows), generation_config=plain)
        assert whole[0, len(ids) :].tolist()[: len(reply.tokens)] == list(reply.tokens)


@SEVERAL
def test_prompts_that_share_nothing(family):
    model = tiny(family)
    engine = Engine(model, find_structure(model))
    some = [(5, 6, 7), (8, 9), (11,)]
    got = last(engine, some, KEYS[:3], Sampling(2, 1.0, 1.0, 20, 1), [0])
    engine.share = False
    assert got == last(engine, some, KEYS[:3], Sampling(2, 1.0, 1.0, 20, 1), [0])


def test_a_row_does_not_hang_on_its_neighbours():
    model = tiny("qwen2")
    engine = Engine(model, find_structure(model))
    many = last(engine, prompts(), KEYS, Sampling(4, 1.0, 1.0, 10, 3), [0])
    alone = last(engine, prompts()[2:3], KEYS[2:3], Sampling(2, 1.0, 1.0, 10, 3), [0])
    assert [r.tokens for r in alone] == [r.tokens for r in many if r.prompt == 2][:2]
    other = last(engine, prompts()[2:3], KEYS[2:3], Sampling(2, 1.0, 1.0, 10, 4), [0])
    assert [r.tokens for r in other] != [r.tokens for r in alone], "another seed, other replies"


def test_end_tokens_and_stop_texts_end_a_reply():
    model = tiny("llama")
    engine = Engine(model, find_structure(model))
    free = last(engine, prompts(), KEYS, Sampling(2, 1.0, 1.0, 16, 0), [0])
    end = free[0].tokens[4]
    ended = last(engine, prompts(), KEYS, Sampling(2, 1.0, 1.0, 16, 0), [end])
    assert all(end not in reply.tokens and reply.ended == (len(reply.tokens) < 16) for reply in ended)
    assert any(reply.ended for reply in ended) and all(reply.tokens for reply in ended)
    stopped = last(engine, prompts(), KEYS, Sampling(2, 1.0, 1.0, 16, 0), [0], lambda tokens: end in tokens)
    engine.share = False
    assert stopped == last(engine, prompts(), KEYS, Sampling(2, 1.0, 1.0, 16, 0), [0], lambda tokens: end in tokens)
    assert stopped[0].tokens == free[0].tokens[:5] and stopped[0].ended


def test_the_first_token_is_never_an_end():
    logits = torch.full((1, 5), -10.0)
    logits[0, 2] = 10.0
    assert next_tokens(module._without(logits, [2]), torch.tensor([0.5]), Sampling()).item() != 2


def test_tokens_fall_as_the_distribution_has_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    uniform = torch.tensor(np.random.default_rng(0).random(20_000))
    share = torch.bincount(next_tokens(logits, uniform, Sampling()), minlength=4) / 20_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.015, rtol=0)
    nucleus = torch.bincount(next_tokens(logits, uniform, Sampling(top_p=0.7)), minlength=4) / 20_000
    torch.testing.assert_close(nucleus, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.015, rtol=0)
    cold = torch.bincount(next_tokens(logits, uniform, Sampling(temperature=0.5)), minlength=4) / 20_000
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    torch.testing.assert_close(cold, squared / squared.sum(), atol=0.015, rtol=0)


def test_random_numbers_are_a_rows_own():
    sampling = Sampling(2, seed=1)
    assert (uniforms(sampling, "a", 0) == uniforms(sampling, "a", 0)).all()
    assert (uniforms(sampling, "a", 0) != uniforms(sampling, "a", 1)).any()
    assert (uniforms(sampling, "a", 0) != uniforms(sampling, "b", 0)).any()


def test_plan_holds_every_prompt_once():
    plan = plan_writing(prompts(), Sampling(4), rows=9)
    assert sorted(place for batch in plan for place in batch) == [0, 1, 2, 3] and max(map(len, plan)) == 2
    assert max(map(len, plan_writing(prompts(), Sampling(100), rows=9))) == 1


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}, {"seed": -1}]
)
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)
