"""How well an objective is met: losses, accuracy and coverage of choices."""

from __future__ import annotations

import numpy as np
import torch

from adapterprobe.adapters.batch_losses import batch_losses
from adapterprobe.adapters.detect_head import DetectHead
from adapterprobe.adapters.objectives import Targets
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.prompts.encoded import Encoded


@torch.no_grad()
def measure(
    engine: Engine,
    encoded: Encoded,
    targets: Targets,
    config: AdapterConfig,
    head: DetectHead | None = None,
    sets: np.ndarray | None = None,
) -> dict[str, float]:
    """Mean loss, accuracy (of the wanted choice, of the head, or of whole replies) and coverage over all prompts: of both choices, or of
    replies the probability of a token (its geometric mean).

    Args:
        sets: of each prompt, its set; then `worst_set_loss` is the highest mean loss of one.
    """
    loss, right, coverage = 0.0, 0, 0.0
    losses = np.zeros(len(encoded))
    for batch in engine.plan(encoded.ids):
        with batch_losses(engine, batch, encoded, targets, config, head, logits=True) as found:
            loss += float(found.losses.sum())
            losses[list(batch.rows)] = found.losses.float().cpu().numpy()
            right += int(found.met.sum())
            if found.logits is None:
                coverage += float((-found.losses).exp().sum())
                continue
            choices = [encoded.choices[row] for row in batch.rows]
            coverage += float(choice_logprobs(found.logits, choices).exp().sum())
    worst = {} if sets is None else {"worst_set_loss": max(float(losses[sets == s].mean()) for s in np.unique(sets))}
    return worst | {
        "loss": loss / len(encoded),
        "accuracy": right / len(encoded),
        "coverage": coverage / len(encoded),
    }
