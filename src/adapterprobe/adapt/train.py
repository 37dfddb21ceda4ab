"""Train an adapter: packed passes, fp32 copies for the optimiser, early stopping on `select`, resumable."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from adapterprobe.adapt.attach import trainable
from adapterprobe.adapt.batching import micro_batches, steps
from adapterprobe.adapt.checkpoint import load_checkpoint, save_checkpoint
from adapterprobe.adapt.fused import fused_lora
from adapterprobe.adapt.measure import losses_of, measure
from adapterprobe.adapt.objectives import wants_positive
from adapterprobe.adapt.optimiser import Optimiser
from adapterprobe.adapt.switch import adapter_merged
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Batch, Engine
from adapterprobe.errors import ModelError
from adapterprobe.models.encode import Encoded
from adapterprobe.progress import bar

SAVE_EVERY = 5.0
"""Seconds between checkpoints inside an epoch: what a stopped training may lose."""


@dataclass
class TrainResult:
    """Learning curve and outcome. Losses are nats per prompt; accuracy is of the wanted choice."""

    parameters: int
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False

    def to_json(self) -> dict:
        return asdict(self)


@dataclass
class _Place:
    """How far a training is."""

    epoch: int = 0
    steps: int = 0
    """Steps taken in that epoch."""
    summed: float = 0.0
    """Loss summed over the prompts of that epoch so far."""
    best_loss: float = math.inf


def train_adapter(
    wrapped,
    engine: Engine,
    train: Encoded,
    select: Encoded,
    config: AdapterConfig,
    seed: int,
    folder: Path,
    what: str = "training",
) -> TrainResult:
    """Train the adapter in `wrapped` (see `attach`); it is left with the weights of its best epoch.

    Args:
        train, select: prompts that are learned from, and prompts by whose loss training is stopped.
        folder: takes checkpoints (after every epoch, and every few seconds); a training that was stopped goes on
            from the last one, to the same result. They stay until `drop_checkpoints`.

    Raises:
        ModelError: a loss or gradient is not finite (says which prompts), or a trainable tensor never moved.
    """
    plan = [
        len(steps(micro_batches(train, config.micro_batch, np.random.default_rng([seed, epoch])), config.batch_size))
        for epoch in range(config.epochs)
    ]
    optimiser = Optimiser(trainable(wrapped), config, sum(plan))
    start = best = optimiser.weights()
    wanted = torch.tensor([wants_positive(config.objective, p) for p in train.prompts])
    wanted_select = torch.tensor([wants_positive(config.objective, p) for p in select.prompts])
    result = TrainResult(sum(tensor.numel() for tensor in start.values()))
    place = _Place()
    saved = load_checkpoint(folder)
    if saved is not None:
        tensors, state = saved
        optimiser.load(tensors, state["taken"])
        best = {name: tensors[f"best.{name}"] for name in start}
        place, result = _Place(**state["place"]), TrainResult(**state["result"])
    saved_at = time.monotonic()

    def save() -> None:
        tensors = optimiser.state() | {f"best.{name}": tensor for name, tensor in best.items()}
        state = {"taken": optimiser.taken, "place": asdict(place), "result": result.to_json()}
        save_checkpoint(folder, f"step-{optimiser.taken:06d}-{len(result.epochs)}", tensors, state)

    with fused_lora(wrapped), bar(sum(plan), what, unit="step", done=optimiser.taken) as progress:
        while place.epoch < config.epochs and not result.stopped_early:
            rng = np.random.default_rng([seed, place.epoch])
            wrapped.train()
            for number, batches in enumerate(steps(micro_batches(train, config.micro_batch, rng), config.batch_size)):
                noise = int(rng.integers(2**31))
                if number < place.steps:
                    continue
                torch.manual_seed(noise)
                place.summed += _gradients(engine, train, batches, wanted)
                optimiser.step()
                place.steps += 1
                progress.update()
                if time.monotonic() - saved_at > SAVE_EVERY:
                    save()
                    saved_at = time.monotonic()
            wrapped.eval()
            with adapter_merged(wrapped):
                now = measure(engine, select, wanted_select)
            if not math.isfinite(now["loss"]):
                raise ModelError(
                    f"after epoch {place.epoch + 1} the loss on select is not finite; lower adapter.lr, or use "
                    "model.dtype=bf16 or fp32"
                )
            place.epoch += 1
            result.epochs.append({"epoch": place.epoch, "train_loss": place.summed / len(train)} | now)
            progress.set_postfix(select_loss=f"{now['loss']:.3f}", select_acc=f"{now['accuracy']:.2f}")
            if now["loss"] < place.best_loss:
                best, place.best_loss, result.best_epoch = optimiser.weights(), now["loss"], place.epoch
            result.stopped_early = place.epoch - result.best_epoch >= config.patience
            place.steps, place.summed = 0, 0.0
            save()
            saved_at = time.monotonic()

    if optimiser.taken > 1:
        _refuse_unmoved(start, optimiser.weights())
    optimiser.set_weights(best)
    wrapped.eval()
    return result


def _gradients(engine: Engine, train: Encoded, batches: list[Batch], wanted: torch.Tensor) -> float:
    """Gradients of one step's mean loss, accumulated over its passes. Returns the summed loss."""
    count = sum(len(batch.rows) for batch in batches)
    summed = 0.0
    for batch in batches:
        losses, _ = losses_of(engine, train, batch, wanted)
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            prompt = train.prompts[batch.rows[bad[0]]]
            raise ModelError(
                f"the loss of {len(bad)} prompts is not finite (first: prompt {prompt.prompt_id} of "
                f"{prompt.example.dataset}); the adapter was left as it was: lower adapter.lr, or use model.dtype=bf16 or fp32"
            )
        (losses.sum() / count).backward()
        summed += float(losses.detach().sum())
    return summed


def _refuse_unmoved(start: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> None:
    stuck = [name for name, tensor in now.items() if torch.equal(tensor, start[name])]
    if stuck:
        raise ModelError(
            f"{len(stuck)} trainable tensors never moved, the first is {stuck[0]}; they are not in the forward pass"
        )
