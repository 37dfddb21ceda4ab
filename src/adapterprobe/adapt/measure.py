"""How well an objective is met: losses, accuracy and coverage of choices."""

from __future__ import annotations

import torch

from adapterprobe.adapt.objectives import choice_loss
from adapterprobe.engine import Batch, Engine
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.models.encode import Encoded


def losses_of(
    engine: Engine, encoded: Encoded, batch: Batch, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss of every row, log-probabilities of both choices: rows x 2)."""
    output = engine.run(batch, states=False)
    logprobs = choice_logprobs(output.logits, [encoded.choices[row] for row in batch.rows])
    return choice_loss(logprobs, wanted[list(batch.rows)].to(logprobs.device)), logprobs


@torch.no_grad()
def measure(engine: Engine, encoded: Encoded, wanted: torch.Tensor) -> dict[str, float]:
    """Mean loss, accuracy of the wanted choice and choice coverage over all prompts."""
    loss, right, coverage = 0.0, 0, 0.0
    for batch in engine.plan(encoded.ids):
        losses, logprobs = losses_of(engine, encoded, batch, wanted)
        loss += float(losses.sum())
        right += int(((logprobs[:, 0] > logprobs[:, 1]).cpu() == wanted[list(batch.rows)]).sum())
        coverage += float(logprobs.exp().sum())
    return {
        "loss": loss / len(encoded),
        "accuracy": right / len(encoded),
        "coverage": coverage / len(encoded),
    }
