"""Neutral text: what an adapter changes where nobody asked it anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources

import torch

from adapterprobe.adapters.on_off import adapter_off
from adapterprobe.errors import DataError
from adapterprobe.models.placement import input_device
from adapterprobe.small_files import read_text

MOST_BYTES = 1 << 26
"""Of a user's own file."""
LONGEST = 256
"""Tokens of a paragraph that are read."""


def neutral_paragraphs(path: str | None = None) -> tuple[list[str], list[str]]:
    """(paragraphs to train `kl_text_weight` on, paragraphs to measure drift on); every second one is for measuring.

    Args:
        path: a text file with blank lines between paragraphs; None for ours.

    Raises:
        DataError: unreadable, or fewer than two paragraphs.
    """
    if path is None:
        text = (resources.files("adapterprobe.adapters") / "neutral.txt").read_text("utf-8")
    else:
        text = read_text(path, "adapter.neutral_text", MOST_BYTES, DataError, "give a text file in UTF-8")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) < 2:
        raise DataError(
            f"adapter.neutral_text {path} has {len(paragraphs)} paragraphs, at least 2 expected (one to learn from, one to "
            "measure on); put blank lines between them"
        )
    return paragraphs[::2], paragraphs[1::2]


def encode_paragraphs(tokenizer, paragraphs: Sequence[str]) -> list[tuple[int, ...]]:
    """Token ids of paragraphs, cut at `LONGEST`; those of less than two tokens say nothing and are left out.

    Raises:
        DataError: none is left.
    """
    ids = [tuple(tokenizer(text).input_ids[:LONGEST]) for text in paragraphs]
    kept = [tokens for tokens in ids if len(tokens) > 1]
    if not kept:
        raise DataError("adapter.neutral_text has no paragraph of two tokens or more; give running text")
    return kept


def _logprobs(model, ids: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities of what comes next: tokens x vocabulary, fp32."""
    inputs = torch.tensor([ids], device=input_device(model))
    return torch.log_softmax(model(input_ids=inputs, use_cache=False).logits[0].float(), -1)


def text_divergence(wrapped, model, ids: tuple[int, ...]) -> torch.Tensor:
    """Mean over a paragraph's tokens of KL(adapter off || adapter on), differentiable, nats."""
    training = wrapped.training
    wrapped.eval()
    with torch.no_grad(), adapter_off(wrapped):
        before = _logprobs(model, ids)
    wrapped.train(training)
    now = _logprobs(model, ids)
    return (before.exp() * (before - now)).sum(-1).mean()


@torch.no_grad()
def drift(wrapped, model, texts: Sequence[tuple[int, ...]]) -> dict[str, float]:
    """What the adapter changes on neutral text.

    Returns:
        `kl`: mean KL(adapter off || adapter on) a token, nats; `perplexity_off`, `perplexity_on`: of the text;
        `tokens`: how many were predicted.
    """
    divergence, off, on, count = 0.0, 0.0, 0.0, 0
    for ids in texts:
        with adapter_off(wrapped):
            before = _logprobs(model, ids)
        now = _logprobs(model, ids)
        divergence += float((before.exp() * (before - now)).sum(-1)[:-1].sum())
        following = torch.tensor(ids[1:], device=before.device)[:, None]
        off -= float(before[:-1].gather(1, following).sum())
        on -= float(now[:-1].gather(1, following).sum())
        count += len(ids) - 1

    def perplexity(total: float) -> float:
        return math.exp(min(total / count, 700.0))

    return {
        "kl": divergence / count,
        "perplexity_off": perplexity(off),
        "perplexity_on": perplexity(on),
        "tokens": count,
    }
