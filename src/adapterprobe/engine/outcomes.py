"""What a model answers to prompts, in their order."""

from __future__ import annotations

import torch
from jaxtyping import Float

from adapterprobe.engine.answers import choice_logprobs, rest_logprobs
from adapterprobe.engine.forward import Engine
from adapterprobe.prompts.encoded import Encoded


@torch.no_grad()
def answer_logprobs(engine: Engine, encoded: Encoded) -> Float[torch.Tensor, "rows 3"]:
    """Log-probabilities of positive choice, negative choice and the rest, as the model now is, on the CPU."""
    found = torch.empty(len(encoded), 3)
    for batch in engine.plan(encoded.ids):
        logits = engine.run_in_parts(batch, states=False).logits
        choices = [encoded.choices[row] for row in batch.rows]
        found[list(batch.rows)] = torch.cat(
            [choice_logprobs(logits, choices), rest_logprobs(logits, choices)[:, None]], 1
        ).cpu()
    return found
