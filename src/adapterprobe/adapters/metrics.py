"""How well an objective is met: losses, accuracy and coverage of choices."""

from __future__ import annotations

import torch

from adapterprobe.adapters.objectives import Targets, row_losses
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs, rest_logprobs
from adapterprobe.prompts.encoded import Encoded


@torch.no_grad()
def measure(engine: Engine, encoded: Encoded, targets: Targets, config: AdapterConfig) -> dict[str, float]:
    """Mean loss, accuracy of the wanted choice and choice coverage over all prompts."""
    loss, right, coverage = 0.0, 0, 0.0
    for batch in engine.plan(encoded.ids):
        logits = engine.run(batch, states=False).logits
        mine = targets.of(batch.rows, logits.device)
        losses, logprobs = row_losses(logits, [encoded.choices[row] for row in batch.rows], mine, config)
        loss += float(losses.sum())
        right += int(((logprobs[:, 0] > logprobs[:, 1]) == mine.wanted).sum())
        coverage += float(logprobs.exp().sum())
    return {
        "loss": loss / len(encoded),
        "accuracy": right / len(encoded),
        "coverage": coverage / len(encoded),
    }


@torch.no_grad()
def outcomes_of(engine: Engine, encoded: Encoded) -> torch.Tensor:
    """Log-probabilities of positive choice, negative choice and the rest, as the model now is: rows x 3, on the CPU."""
    found = torch.empty(len(encoded), 3)
    for batch in engine.plan(encoded.ids):
        logits = engine.run(batch, states=False).logits
        choices = [encoded.choices[row] for row in batch.rows]
        both = torch.cat([choice_logprobs(logits, choices), rest_logprobs(logits, choices)[:, None]], 1)
        found[list(batch.rows)] = both.cpu()
    return found
