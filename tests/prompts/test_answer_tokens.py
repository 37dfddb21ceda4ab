"""Choice tokens in their context, and refusals."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.errors import DataError
from adapterprobe.prompts.answer_tokens import ChoiceTokens, choice_tokens


def sentencepiece_like():
    """A unigram tokenizer that marks word beginnings, as sentencepiece models do."""
    words = ["▁", "▁Yes", "Yes", "▁No", "No", "▁Not", "Answer", ":", "▁Answer", "Y", "N", "o", "t", "\n", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([(w, -1.0 - i * 0.01) for i, w in enumerate(words)], unk_id=14))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_byte_level(tokenizer):
    found = choice_tokens(tokenizer, "Question: x?\nAnswer:", "Yes", "No")
    for ids, word in ((found.positive, "Yes"), (found.negative, "No")):
        texts = [tokenizer.decode([i]) for i in ids]
        assert any(t == " " + word for t in texts), texts
        assert all(word.startswith(t.strip()) for t in texts)
    assert not set(found.positive) & set(found.negative)


def test_sentencepiece():
    tokenizer = sentencepiece_like()
    found = choice_tokens(tokenizer, "Answer:", "Yes", "No")
    assert tokenizer.convert_tokens_to_ids("▁Yes") in found.positive
    assert tokenizer.convert_tokens_to_ids("▁No") in found.negative


def test_equal_beginnings_are_refused(tokenizer):
    with pytest.raises(DataError, match=r"'Yes indeed' and 'Yes' both may begin with the token"):
        choice_tokens(tokenizer, "Answer:", "Yes indeed", "Yes")


def test_choice_logprobs_literally():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 50, (5, 30)).astype(np.float32)
    choices = [ChoiceTokens((1, 2), (3,)), ChoiceTokens((4,), (5, 6, 7)), *[ChoiceTokens((8,), (9,))] * 3]
    got = choice_logprobs(torch.tensor(logits), choices).numpy()
    for row, choice in enumerate(choices):
        logprobs = logits[row].astype(float) - logsumexp(logits[row].astype(float))
        assert np.allclose(
            got[row], [logsumexp(logprobs[list(s)]) for s in (choice.positive, choice.negative)], atol=1e-3
        )
    assert np.isfinite(choice_logprobs(torch.tensor([[3e38, -3e38]]), [ChoiceTokens((0,), (1,))]).numpy()[0, 0])
