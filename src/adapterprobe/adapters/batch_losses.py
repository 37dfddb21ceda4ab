"""What an objective makes of one planned pass: every row's loss, whether the row is met, and the pass's logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from adapterprobe.adapters.detect_head import DetectHead, head_labels, head_losses, head_spans
from adapterprobe.adapters.objectives import Targets, row_losses
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Batch, Engine
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import Span


@dataclass(frozen=True)
class BatchLosses:
    """Of a pass's rows: `losses` (nats, times the rows' weights, with gradients), `met` (the wanted choice is the likelier one, the head's
    sign is the label's, or the reply is what the model would say), `logits` rows x vocabulary, where they were asked for (of replies
    none)."""

    losses: torch.Tensor
    met: torch.Tensor
    logits: torch.Tensor | None


def _spans(encoded: Encoded, batch: Batch) -> list[Span]:
    return [encoded.reads[0].spans[row] for row in batch.rows]


def _token_shares(spans: Sequence[Span], answers: Sequence[Sequence[Span]], weight: float) -> torch.Tensor:
    """How much each token of replies counts in its row's loss, row after row; a row's sum to 1."""
    found = []
    for (start, stop), marked in zip(spans, answers, strict=True):
        row = torch.ones(stop - start)
        for low, high in marked:
            row[max(low - start, 0) : max(high - start, 0)] = weight
        found.append(row / row.sum())
    return torch.cat(found)


def reply_losses(
    logits: torch.Tensor,
    ids: Sequence[Sequence[int]],
    spans: Sequence[Span],
    weights: torch.Tensor,
    shares: torch.Tensor | None = None,
) -> BatchLosses:
    """Cross-entropy of whole replies: of each row the mean over its reply's tokens; `met` where every token is the likeliest.

    Args:
        logits: tokens x vocabulary, in front of each token of the replies, row after row. spans: where each reply is in its ids.
        shares: how much each token counts (a row's sum to 1); None: all the same.
    """
    wanted = torch.tensor(
        [token for row, (start, stop) in zip(ids, spans, strict=True) for token in row[start:stop]],
        device=logits.device,
    )
    losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    right = (logits.argmax(-1) == wanted).float()
    lengths = [stop - start for start, stop in spans]
    if shares is None:
        means = torch.stack([part.mean() for part in losses.split(lengths)])
    else:
        means = torch.stack([part.sum() for part in (losses * shares).split(lengths)])
    met = torch.stack([part.min() for part in right.split(lengths)]) == 1
    return BatchLosses(means * weights, met, None)


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
    if config.target == "reply":
        with engine.predicting(batch, encoded.reads[0].spans) as expected:
            ids, spans = [encoded.ids[row] for row in batch.rows], _spans(encoded, batch)
            shares = _token_shares(spans, [encoded.false[row] for row in batch.rows], config.answer_weight)
            yield reply_losses(expected, ids, spans, weights, shares.to(expected.device))
        return
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
