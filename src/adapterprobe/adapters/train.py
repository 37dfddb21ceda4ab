"""Train an adapter: packed passes, fp32 copies for the optimiser, early stopping on `select`, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.activation_checkpointing import activations_again
from adapterprobe.adapters.adalora_schedule import RankAllocation
from adapterprobe.adapters.attach import fixed_entries, trainable
from adapterprobe.adapters.batching import micro_batches, steps
from adapterprobe.adapters.checkpoint import load_checkpoint, save_checkpoint
from adapterprobe.adapters.detect_head import head_of
from adapterprobe.adapters.fused_lora import fused_lora
from adapterprobe.adapters.gradient_step import LARGEST_SCALE, Stepper, adapter_off_eval
from adapterprobe.adapters.group_dro import GroupWeights
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.objectives import Targets, make_targets, needs_base
from adapterprobe.adapters.on_off import adapter_merged
from adapterprobe.adapters.optimizer import Optimiser
from adapterprobe.adapters.train_result import Progress, TrainResult, shown
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.outcomes import answer_logprobs
from adapterprobe.errors import ModelError
from adapterprobe.progress import bar, say
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.prompt_sets import set_names

SAVE_EVERY = 5.0
"""Seconds between checkpoints inside an epoch: what a stopped training may lose."""
SKIPS = 10
REGROW = 200
"""Steps in a row that may be skipped."""

Log = Callable[[int, dict[str, float]], None]
"""Takes a step's number and values to be watched."""


def targets_of(wrapped, engine: Engine, encoded: Encoded, config: AdapterConfig) -> Targets:
    """What the objective asks of prompts; the adapter is switched off for what the base model says of them."""
    base = None
    if needs_base(config):
        with adapter_off_eval(wrapped):
            base = answer_logprobs(engine, encoded)
    return make_targets(config, encoded.prompts, base)


def train_adapter(
    wrapped,
    engine: Engine,
    train: Encoded,
    select: Encoded,
    config: AdapterConfig,
    seed: int,
    folder: Path,
    what: str = "training",
    neutral: Sequence[tuple[int, ...]] = (),
    log: Log | None = None,
) -> TrainResult:
    """Train the adapter in `wrapped` (see `attach`), with the head beside it (see `attach_head`) if there is one; both are left
    with the weights of the best epoch.

    Args:
        train, select: prompts that are learned from, and prompts by whose loss training is stopped.
        folder: takes checkpoints (after every epoch, and every few seconds); a training that was stopped goes on
            from the last one, to the same result. They stay until `drop_checkpoints`.
        neutral: token ids of paragraphs for `config.kl_text_weight`.
        log: called after every step and epoch.

    Raises:
        ModelError: a loss or gradient is not finite (explained, see `NonFinite`), a single prompt does not fit into
            memory, or a trainable tensor never moved.
        ConfigError: the objective cannot be asked of these prompts.
    """
    return _Training(wrapped, engine, train, select, config, seed, folder, neutral, log).run(what)


class _Training:
    def __init__(self, wrapped, engine, train, select, config, seed, folder, neutral, log) -> None:
        self.wrapped, self.engine, self.train, self.select = wrapped, engine, train, select
        self.config, self.seed, self.folder = config, seed, folder
        self.log = log or (lambda step, values: None)
        self.total, self.epochs = self._length()
        self.optimiser = Optimiser(trainable(wrapped), config, self.total, fixed_entries(wrapped))
        self.start = self.best = self.optimiser.weights()
        self.allocation = RankAllocation.of(wrapped, self.total)
        self.stepper = Stepper(
            wrapped, engine, train, targets_of(wrapped, engine, train, config), config, neutral, config.micro_batch
        )
        if config.group_dro:
            self.stepper.robust = GroupWeights(set_names(train.prompts), config.group_dro)
        self.select_sets = set_names(select.prompts) if config.group_dro else None
        self.select_targets = targets_of(wrapped, engine, select, config)
        fixed = sum(int(where.sum()) for where in self.optimiser.fixed.values())
        self.result = TrainResult(sum(tensor.numel() for tensor in self.start.values()) - fixed)
        self.place = Progress()
        self.saved_at = time.monotonic()

    def _steps(self, epoch: int) -> tuple[list, np.random.Generator]:
        rng = np.random.default_rng([self.seed, epoch])
        size = min(self.config.micro_batch, self.config.batch_size)
        return steps(micro_batches(self.train, size, rng), self.config.batch_size), rng

    def _length(self) -> tuple[int, int]:
        """(steps, epochs) of the whole training."""
        total, epoch = 0, 0
        most = self.config.max_steps
        while epoch < self.config.epochs if most is None else total < most:
            total += len(self._steps(epoch)[0])
            epoch += 1
        return total if most is None else most, epoch

    def run(self, what: str) -> TrainResult:
        self._resume()
        place, result = self.place, self.result
        with (
            fused_lora(self.wrapped),
            activations_again(self.engine.model, self.config.checkpoint_activations),
            bar(self.total, what, unit="step", done=self.optimiser.taken) as progress,
        ):
            while place.epoch < self.epochs and not result.stopped_early:
                self._epoch(progress)
                self._end_of_epoch(progress)
        if self.optimiser.taken - self.optimiser.skipped > 1:
            self._refuse_unmoved()
        self.optimiser.set_weights(self.best)
        if self.allocation:
            self.allocation.finish()
        self.wrapped.eval()
        return result

    def _epoch(self, progress) -> None:
        place, optimiser = self.place, self.optimiser
        self.wrapped.train()
        planned, rng = self._steps(place.epoch)
        for number, batches in enumerate(planned):
            noise = int(rng.integers(2**31))
            if number < place.steps:
                continue
            if optimiser.taken >= self.total:
                break
            self._step(batches, noise, progress)
            place.steps += 1
            progress.update()
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                self._save()
        self.wrapped.eval()

    def _step(self, batches: list, noise: int, progress) -> None:
        place, optimiser, stepper = self.place, self.optimiser, self.stepper
        scale = stepper.scale
        while True:
            summed = stepper.gradients(batches, noise, optimiser.taken)
            if self.allocation:
                (stepper.scale * self.allocation.penalty()).backward()
            bad = optimiser.take_gradients(stepper.scale)
            if not bad or not math.isfinite(summed) or stepper.scale <= 1:
                break
            # In fp16 a gradient may only be too large for its scale.
            stepper.scale /= 4
        if bad or not math.isfinite(summed):
            # It was not the scale.
            stepper.scale = scale
        else:
            place.good += 1
            if place.good % REGROW == 0 and stepper.scale > 1:
                stepper.scale = min(2 * stepper.scale, LARGEST_SCALE)
        if bad or not math.isfinite(summed):
            self._non_finite(batches)
            optimiser.skip()
        else:
            optimiser.step()
            if self.allocation:
                self.allocation.after_step(optimiser)
            if stepper.robust is not None:
                stepper.robust.update()
            count = sum(len(batch.rows) for batch in batches)
            place.summed, place.seen, place.skipped = place.summed + summed, place.seen + count, 0
            self.log(optimiser.taken, {"train/loss": summed / count})
            progress.set_postfix(shown(self.result) | {"loss": f"{summed / count:.3f}"}, refresh=False)
        optimiser.forget_gradients()

    def _non_finite(self, batches: list) -> None:
        """Explain, then stop or note it."""
        place = self.place
        found = self.stepper.explain(batches, self.optimiser.taken + 1)
        told = str(found) if found else f"step {self.optimiser.taken + 1}: the loss or gradient is not finite"
        if self.config.on_nonfinite == "stop":
            raise ModelError(told)
        say(f"skipped: {told}")
        self.result.non_finite.append(found.to_json() if found else {"step": self.optimiser.taken + 1})
        place.skipped += 1
        if place.skipped >= SKIPS:
            raise ModelError(f"{SKIPS} steps in a row were not finite, nothing is learned any more; the last: {told}")

    def _end_of_epoch(self, progress) -> None:
        place, result, config = self.place, self.result, self.config
        with adapter_merged(self.wrapped):
            now = measure(
                self.engine, self.select, self.select_targets, config, head_of(self.wrapped), self.select_sets
            )
        judged_by = now.get("worst_set_loss", now["loss"])
        if not math.isfinite(now["loss"]):
            raise ModelError(
                f"after epoch {place.epoch + 1} the loss on select is not finite; lower adapter.lr, or use "
                "model.dtype=bf16 or fp32"
            )
        place.epoch += 1
        mean = place.summed / place.seen if place.seen else None
        result.epochs.append({"epoch": place.epoch, "train_loss": mean} | now)
        result.steps, result.micro_batch = self.optimiser.taken, self.stepper.rows
        self.log(self.optimiser.taken, {f"select/{name}": value for name, value in now.items()})
        progress.set_postfix(shown(result))
        if judged_by < place.best_loss or not config.early_stopping:
            self.best, place.best_loss, result.best_epoch = self.optimiser.weights(), judged_by, place.epoch
        result.stopped_early = place.epoch < self.epochs and place.epoch - result.best_epoch >= config.patience
        place.steps, place.summed, place.seen = 0, 0.0, 0
        self._save()

    def _refuse_unmoved(self) -> None:
        now = self.optimiser.weights()
        stuck = [name for name, tensor in now.items() if bool((tensor == self.start[name]).all())]
        # Ranks that AdaLoRA has taken away are nought, where they began.
        stuck = [name for name in stuck if not (self.allocation and "lora_E" in name and not now[name].any())]
        if stuck:
            raise ModelError(
                f"{len(stuck)} trainable tensors never moved, the first is {stuck[0]}; they are not in the forward pass"
            )

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if not processes.is_main():
            return
        tensors = self.optimiser.state() | {f"best.{name}": tensor for name, tensor in self.best.items()}
        if self.allocation:
            tensors |= self.allocation.state()
        if self.stepper.robust is not None:
            tensors |= self.stepper.robust.state()
        state = {
            "taken": self.optimiser.taken,
            "skipped": self.optimiser.skipped,
            "rows": self.stepper.rows,
            "scale": self.stepper.scale,
            "place": asdict(self.place),
            "result": self.result.to_json(),
        }
        save_checkpoint(self.folder, f"step-{self.optimiser.taken:06d}-{len(self.result.epochs)}", tensors, state)

    def _resume(self) -> None:
        saved = load_checkpoint(self.folder)
        if saved is None:
            return
        tensors, state = saved
        self.optimiser.load(tensors, state["taken"], state["skipped"])
        self.best = {name: tensors[f"best.{name}"] for name in self.start}
        if self.allocation:
            self.allocation.load(tensors)
        if self.stepper.robust is not None:
            self.stepper.robust.load(tensors)
        self.stepper.rows, self.stepper.scale = state["rows"], state["scale"]
        self.place, self.result = Progress(**state["place"]), TrainResult(**state["result"])
