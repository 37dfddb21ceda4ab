"""Train an adapter: shared prefixes in the graph, fp32 copies for the optimiser, early stopping on `select`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from adapterprobe.adapt.attach import trainable
from adapterprobe.adapt.checkpoint import drop_checkpoints, load_checkpoint, save_checkpoint
from adapterprobe.adapt.fused import fused_lora
from adapterprobe.adapt.objectives import choice_loss, wants_positive
from adapterprobe.adapt.switch import adapter_merged
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Batch, Engine, plan_batches
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.engine.batches import prefix_pools
from adapterprobe.errors import ModelError
from adapterprobe.models.encode import Encoded
from adapterprobe.progress import bar


@dataclass
class TrainResult:
    """Learning curve and outcome. Losses are nats per prompt; accuracy is of the wanted choice."""

    parameters: int
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False

    def to_json(self) -> dict:
        return asdict(self)


class _Masters:
    """fp32 copies of the trainable weights: small updates would be lost in bf16."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.copies = {n: p.detach().float().clone().requires_grad_() for n, p in parameters.items()}

    def take_gradients(self) -> None:
        for name, parameter in self.parameters.items():
            self.copies[name].grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.copies[name])

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, copy in self.copies.items():
            copy.copy_(tensors[name])
        self.write_back()

    def snapshot(self) -> dict[str, torch.Tensor]:
        return {name: copy.detach().clone() for name, copy in self.copies.items()}


CHUNK = 16
"""Rows of one prefix that stay together: fewer mix better, more share more."""


def micro_batches(encoded: Encoded, size: int, rng: np.random.Generator) -> list[Batch]:
    """All rows once, in a fresh order, as micro-batches of about `size` prompts.

    Rows of one prefix go together in small chunks, so that the prefix is worth its cost, and the right and the
    wrong version of a fact stay in one, so that what they have in common (the answer Yes, say) cancels out of the
    gradient. A micro-batch takes chunks as they come.
    """
    pools, loose = prefix_pools(encoded.ids)
    chunks: list[list[int]] = []
    for _, rows in [*pools, (0, loose)]:
        facts: dict[tuple, list[int]] = {}
        for row in rows:
            prompt = encoded.prompts[row]
            facts.setdefault((prompt.example.dataset, prompt.example.group), []).append(row)
        pairs = list(facts.values())
        chunks.append([])
        for i in rng.permutation(len(pairs)):
            if chunks[-1] and len(chunks[-1]) + len(pairs[i]) > min(CHUNK, size):
                chunks.append([])
            chunks[-1] += pairs[i]
    # A fact with more rows than a pass may have is cut all the same.
    chunks = [chunk[i : i + size] for chunk in chunks for i in range(0, len(chunk), size)]
    waiting = [chunks[i] for i in rng.permutation(len(chunks))]
    batches = []
    while waiting:
        rows = list(waiting.pop(0))
        for chunk in list(waiting):
            if len(rows) + len(chunk) <= size:
                rows += chunk
                waiting.remove(chunk)
        batches.append(rows)
    return [_planned(encoded, batches[i]) for i in rng.permutation(len(batches))]


def _planned(encoded: Encoded, rows: list[int]) -> Batch:
    """One micro-batch as a single pass."""
    rows = sorted(rows)
    (batch,) = plan_batches([encoded.ids[row] for row in rows], token_budget=1 << 40)
    return Batch(tuple(replace(group, rows=tuple(rows[i] for i in group.rows)) for group in batch.groups))


def _steps(micro: list[Batch], size: int) -> list[list[Batch]]:
    """Micro-batches gathered into optimiser steps of about `size` prompts."""
    steps: list[list[Batch]] = [[]]
    for batch in micro:
        if steps[-1] and sum(len(b.rows) for b in [*steps[-1], batch]) > size:
            steps.append([])
        steps[-1].append(batch)
    return steps


def _losses(engine: Engine, encoded: Encoded, batch: Batch, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    output = engine.run(batch, states=False)
    logprobs = choice_logprobs(output.logits, [encoded.choices[row] for row in batch.rows])
    return choice_loss(logprobs, wanted[list(batch.rows)].to(logprobs.device)), logprobs


@torch.no_grad()
def measure(engine: Engine, encoded: Encoded, wanted: torch.Tensor) -> dict[str, float]:
    """Mean loss, accuracy of the wanted choice and choice coverage over all prompts."""
    loss, right, coverage = 0.0, 0, 0.0
    for batch in engine.plan(encoded.ids):
        losses, logprobs = _losses(engine, encoded, batch, wanted)
        loss += float(losses.sum())
        right += int(((logprobs[:, 0] > logprobs[:, 1]).cpu() == wanted[list(batch.rows)]).sum())
        coverage += float(logprobs.exp().sum())
    return {
        "loss": loss / len(encoded),
        "accuracy": right / len(encoded),
        "coverage": coverage / len(encoded),
    }


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
        folder: takes a checkpoint after every epoch; a training that was stopped goes on from it.

    Raises:
        ModelError: a loss or gradient is not finite (says which prompts), or a trainable tensor never moved.
    """
    parameters = trainable(wrapped)
    masters = _Masters(parameters)
    start = masters.snapshot()
    optimizer = torch.optim.AdamW(masters.copies.values(), lr=config.lr, weight_decay=config.weight_decay)
    wanted = torch.tensor([wants_positive(config.objective, p) for p in train.prompts])
    wanted_select = torch.tensor([wants_positive(config.objective, p) for p in select.prompts])
    total = sum(
        len(_steps(micro_batches(train, config.micro_batch, np.random.default_rng([seed, e])), config.batch_size))
        for e in range(config.epochs)
    )
    rise = max(1, round(config.warmup * total))
    result = TrainResult(sum(p.numel() for p in parameters.values()))
    best, best_loss, step, first = start, math.inf, 0, 0

    saved = load_checkpoint(folder)
    if saved is not None:
        tensors, state = saved
        masters.load({n: tensors[f"now.{n}"] for n in masters.copies})
        best = {n: tensors[f"best.{n}"] for n in masters.copies}
        for name, copy in masters.copies.items():
            if f"m.{name}" in tensors:
                optimizer.state[copy] = {
                    "step": torch.tensor(float(state["step"])),
                    "exp_avg": tensors[f"m.{name}"],
                    "exp_avg_sq": tensors[f"v.{name}"],
                }
        best_loss, step, first = state["best_loss"], state["step"], state["epoch"]
        result = TrainResult(**state["result"])

    with fused_lora(wrapped), bar(len(train) * config.epochs, what, done=len(train) * first) as progress:
        for epoch in range(first, config.epochs):
            if result.stopped_early:
                break
            rng = np.random.default_rng([seed, epoch])
            wrapped.train()
            summed = 0.0
            for batches in _steps(micro_batches(train, config.micro_batch, rng), config.batch_size):
                torch.manual_seed(int(rng.integers(2**31)))
                count = sum(len(batch.rows) for batch in batches)
                for batch in batches:
                    losses, _ = _losses(engine, train, batch, wanted)
                    _refuse_non_finite(losses, train, batch, "loss")
                    (losses.sum() / count).backward()
                    summed += float(losses.detach().sum())
                    progress.update(len(batch.rows))
                masters.take_gradients()
                _refuse_non_finite_gradients(masters)
                torch.nn.utils.clip_grad_norm_(masters.copies.values(), 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * min((step + 1) / rise, max(0.0, (total - step) / max(1, total - rise)))
                optimizer.step()
                masters.write_back()
                step += 1
            wrapped.eval()
            with adapter_merged(wrapped):
                now = measure(engine, select, wanted_select)
            result.epochs.append({"epoch": epoch + 1, "train_loss": summed / len(train)} | now)
            progress.set_postfix(select_loss=f"{now['loss']:.3f}", select_acc=f"{now['accuracy']:.2f}")
            if now["loss"] < best_loss:
                best, best_loss, result.best_epoch = masters.snapshot(), now["loss"], epoch + 1
            result.stopped_early = epoch + 1 - result.best_epoch >= config.patience
            moments = {
                f"{short}.{name}": optimizer.state[copy][long]
                for name, copy in masters.copies.items()
                for short, long in (("m", "exp_avg"), ("v", "exp_avg_sq"))
                if copy in optimizer.state
            }
            tensors = {f"now.{n}": t for n, t in masters.snapshot().items()}
            tensors |= {f"best.{n}": t for n, t in best.items()} | moments
            state = {"epoch": epoch + 1, "step": step, "best_loss": best_loss, "result": result.to_json()}
            save_checkpoint(folder, tensors, state)

    stuck = (
        [name for name, copy in masters.copies.items() if torch.equal(copy.detach(), start[name])] if step > 1 else []
    )
    if stuck and first == 0:
        raise ModelError(
            f"{len(stuck)} trainable tensors never moved, the first is {stuck[0]}; they are not in the forward pass"
        )
    masters.load(best)
    wrapped.eval()
    drop_checkpoints(folder)
    return result


def _refuse_non_finite(losses: torch.Tensor, encoded: Encoded, batch: Batch, what: str) -> None:
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if bad:
        prompt = encoded.prompts[batch.rows[bad[0]]]
        raise ModelError(
            f"the {what} of {len(bad)} prompts is not finite (first: prompt {prompt.prompt_id} of {prompt.example.dataset}); "
            "the adapter was left as it was: lower adapter.lr, or use model.dtype=bf16 or fp32"
        )


def _refuse_non_finite_gradients(masters: _Masters) -> None:
    for name, copy in masters.copies.items():
        if copy.grad is not None and not bool(torch.isfinite(copy.grad).all()):
            raise ModelError(
                f"the gradient of {name} is not finite; the adapter was left as it was: lower adapter.lr, or use "
                "model.dtype=bf16 or fp32"
            )
