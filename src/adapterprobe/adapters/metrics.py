"""How well an objective is met: losses, accuracy and coverage of choices."""

from __future__ import annotations

import torch

from adapterprobe.adapters.batch_losses import batch_losses
from adapterprobe.adapters.detect_head import DetectHead
from adapterprobe.adapters.objectives import Targets
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs, rest_logprobs
from adapterprobe.prompts.encoded import Encoded


@torch.no_grad()
def measure(
    engine: Engine, encoded: Encoded, targets: Targets, config: AdapterConfig, head: DetectHead | None = None
) -> dict[str, float]:
    """Mean loss, accuracy (of the wanted choice, or of the head) and choice coverage over all prompts."""
    loss, right, coverage = 0.0, 0, 0.0
    for batch in engine.plan(encoded.ids):
        with batch_losses(engine, batch, encoded, targets, config, head, logits=True) as found:
            assert found.logits is not None
            loss += float(found.losses.sum())
            right += int(found.met.sum())
            choices = [encoded.choices[row] for row in batch.rows]
            coverage += float(choice_logprobs(found.logits, choices).exp().sum())
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
