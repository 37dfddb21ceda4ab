"""What a training leaves, and how far one is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field


@dataclass
class TrainResult:
    """Learning curve and outcome. Losses are nats per prompt; accuracy is of the wanted choice."""

    parameters: int
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    steps: int = 0
    """Optimiser steps that were taken."""
    micro_batch: int = 0
    """Prompts of a pass at the end (lower than configured where memory ran out)."""
    non_finite: list[dict] = field(default_factory=list)
    """Steps that were skipped because a loss or gradient was not finite, each explained."""

    def to_json(self) -> dict:
        return asdict(self)


@dataclass
class Progress:
    """How far a training is."""

    epoch: int = 0
    steps: int = 0
    """Steps taken in that epoch."""
    summed: float = 0.0
    """Loss summed over the prompts of that epoch so far."""
    seen: int = 0
    """Prompts of that epoch so far."""
    best_loss: float = math.inf
    skipped: int = 0
    """Steps skipped in a row."""
    good: int = 0
    """Steps that were finite: after every `REGROW` of them fp16's scale doubles again."""


def shown(result: TrainResult) -> dict[str, str]:
    """What a progress bar says of the last epoch."""
    if not result.epochs:
        return {}
    last = result.epochs[-1]
    return {
        "select_loss": f"{last['loss']:.3f}",
        "select_acc": f"{last['accuracy']:.2f}",
        "coverage": f"{last['coverage']:.2f}",
    }
