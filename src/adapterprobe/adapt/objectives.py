"""What an adapter is trained to answer. An objective names, for each prompt, the choice that is asked for."""

from __future__ import annotations

import torch

from adapterprobe.types import Prompt


def wants_positive(objective: str, prompt: Prompt) -> bool:
    """Whether the objective asks for the positive choice.

    `truth`: the true choice, whatever the prompt pushes to.
    """
    if objective != "truth":
        raise ValueError(f"unknown objective {objective!r}")
    return prompt.example.truth


def choice_loss(logprobs: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the wanted choice against the whole vocabulary, one value per row.

    Args:
        logprobs: rows x 2 log-probabilities of (positive, negative), each summed over its token ids.
        positive: rows, True where the positive choice is wanted.
    """
    return -torch.where(positive, logprobs[:, 0], logprobs[:, 1])
