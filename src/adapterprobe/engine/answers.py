"""From logits at the answer position to choice probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adapterprobe.prompts.answer_tokens import ChoiceTokens


def choice_logprobs(
    logits: Float[Tensor, "rows vocabulary"], choices: Sequence[ChoiceTokens]
) -> Float[Tensor, "rows 2"]:
    """Log-probability of the positive and of the negative choice: rows x 2, fp32, finite for finite logits.

    Softmax over the whole vocabulary (so that coverage can be told), summed over each choice's token ids.
    Worked out row by row with `logsumexp`, never `log(softmax(...))`, which is -inf for what is unlikely.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    sides = []
    for side in ("positive", "negative"):
        sets = [getattr(choice, side) for choice in choices]
        width = max(map(len, sets))
        ids = torch.tensor([list(s) + [s[0]] * (width - len(s)) for s in sets], device=logits.device)
        there = torch.tensor([[True] * len(s) + [False] * (width - len(s)) for s in sets], device=logits.device)
        picked = logprobs.gather(1, ids).masked_fill(~there, float("-inf"))
        sides.append(torch.logsumexp(picked, dim=1))
    return torch.stack(sides, dim=1)


def without_choices(
    logits: Float[Tensor, "rows vocabulary"], choices: Sequence[ChoiceTokens]
) -> Float[Tensor, "rows vocabulary"]:
    """Logits with both choices' tokens at -inf: rows x vocabulary."""
    sets = [sorted({*choice.positive, *choice.negative}) for choice in choices]
    width = max(map(len, sets))
    if not width:
        return logits
    ids = torch.tensor([s + [s[0]] * (width - len(s)) for s in sets], device=logits.device)
    return logits.scatter(1, ids, float("-inf"))


def rest_logprobs(logits: Float[Tensor, "rows vocabulary"], choices: Sequence[ChoiceTokens]) -> Float[Tensor, " rows"]:
    """Log-probability of everything but the two choices: rows, fp32. Summed from its parts, never 1 minus the choices."""
    logits = logits.float()
    return torch.logsumexp(without_choices(logits, choices), 1) - torch.logsumexp(logits, 1)
