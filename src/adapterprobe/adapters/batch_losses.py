"""What an objective makes of one planned pass: every row's loss, whether the row is met, and the pass's logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from adapterprobe.adapters.detect_head import DetectHead, head_labels, head_losses, head_spans
from adapterprobe.adapters.objectives import Targets, row_losses
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Batch, Engine
from adapterprobe.prompts.encoded import Encoded


@dataclass(frozen=True)
class BatchLosses:
    """Of a pass's rows: `losses` (nats, times the rows' weights, with gradients), `met` (the wanted choice is the likelier one, or the head's sign is the
    label's), `logits` rows x vocabulary, where they were asked for."""

    losses: torch.Tensor
    met: torch.Tensor
    logits: torch.Tensor | None


@contextlib.contextmanager
def batch_losses(
    engine: Engine,
    batch: Batch,
    encoded: Encoded,
    targets: Targets,
    config: AdapterConfig,
    head: DetectHead | None = None,
    logits: bool = False,
) -> Iterator[BatchLosses]:
    """One pass; a backward pass must be made within.

    Args:
        encoded: the prompts that `batch` was planned over; `targets`: theirs.
        head: of the objective `detect`, whose passes end at the head's layer unless `logits` are asked for.
    """
    mine = targets.of(batch.rows, engine.device)
    weights = torch.tensor([encoded.prompts[row].example.weight for row in batch.rows], device=engine.device)
    if head is None:
        with engine.passing(batch, states=False) as output:
            choices = [encoded.choices[row] for row in batch.rows]
            losses, logprobs = row_losses(output.logits, choices, mine, config)
            yield BatchLosses(losses * weights, (logprobs[:, 0] > logprobs[:, 1]) == mine.wanted, output.logits)
        return
    spans = head_spans(encoded)
    lengths = [spans[row][1] - spans[row][0] for row in batch.rows]
    # Blocks that are computed again in the backward pass must not be left half-way.
    whole = logits or config.checkpoint_activations
    with engine.reading_tokens(batch, [head.layer], spans, whole) as (states, found):
        labels = head_labels(encoded, batch.rows, engine.device)
        losses, scores = head_losses(head, states[head.layer], lengths, labels, weights)
        yield BatchLosses(losses, (scores > 0) == mine.wanted, found)
