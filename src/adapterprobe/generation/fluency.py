"""How natural a reply is: its perplexity under the untouched model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapterprobe.adapters.batch_losses import reply_losses
from adapterprobe.engine import Engine
from adapterprobe.prompts.encoded import Encoded


@torch.no_grad()
def perplexities(engine: Engine, encoded: Encoded) -> list[float]:
    """Of every prompt's reply, as the model now is: exp of the mean negative log-probability of its tokens, in the prompts' order."""
    spans = encoded.reads[0].spans
    found = [0.0] * len(encoded)
    for batch in engine.plan(encoded.ids):
        with engine.predicting(batch, spans) as logits:
            rows = list(batch.rows)
            ones = torch.ones(len(rows), device=logits.device)
            losses = reply_losses(logits, [encoded.ids[r] for r in rows], [spans[r] for r in rows], ones).losses
        for row, loss in zip(rows, losses.exp().tolist(), strict=True):
            found[row] = loss
    return found


def median(values: Sequence[float]) -> float | None:
    """The middle value; None of none."""
    return float(torch.tensor(list(values)).quantile(0.5)) if values else None
