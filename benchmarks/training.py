"""(f) A training step with the adapter on the last third of the blocks: against plain PEFT."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from adapterprobe.adapters import attach
from adapterprobe.adapters.attach import detach, trainable
from adapterprobe.adapters.batching import micro_batches
from adapterprobe.adapters.fused_lora import fused_lora
from adapterprobe.adapters.metrics import losses_of
from adapterprobe.adapters.optimizer import Optimiser
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.engine.answers import choice_logprobs
from benchmarks.workload import Row, demo, model, ratio

STEPS = 10


def run() -> list[Row]:
    lm = model()
    config, encoded = demo()
    train = encoded.subset(encoded.where("adapter-train"))
    wanted = torch.tensor([p.example.truth for p in train.prompts])
    rows = []
    for layers, bar in (("67%-100%", 3.0), (config.adapter.layers, None)):
        adapter = config.adapter.model_copy(update={"layers": layers, "lr": 1e-3})
        batches = micro_batches(train, adapter.micro_batch, np.random.default_rng(0))[:STEPS]
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        losses: dict[str, list[float]] = {"ours": [], "plain": []}
        for side in ("plain", "ours"):
            wrapped = attach(lm.model, lm.structure, adapter, 0)
            optimiser = Optimiser(trainable(wrapped), adapter, STEPS)
            engine = Engine(lm.model, lm.structure)
            lowest = min(int(n.split("layers.")[1].split(".")[0]) for n in optimiser.parameters)
            trunk = LowerBlockCache(lowest, engine, engine.plan(train.ids))
            if side == "ours":
                trunk.collect(engine)
            wrapped.train()
            with engine.starting_from(trunk if side == "ours" else None):
                for number, batch in enumerate(batches):
                    start = time.perf_counter()
                    if side == "plain":
                        loss = _plain_losses(lm, train, batch, wanted)
                        loss.mean().backward()
                    else:
                        with fused_lora(wrapped):
                            loss, _ = losses_of(engine, train, batch, wanted)
                            loss.mean().backward()
                    optimiser.step()
                    if number:
                        seconds[side].append(time.perf_counter() - start)
                    losses[side].append(float(loss.detach().mean()))
            detach(wrapped)
        gap = max(abs(a - b) for a, b in zip(losses["ours"], losses["plain"], strict=True))
        times = ratio(seconds["plain"], seconds["ours"])
        rows.append(
            Row(
                f"training step of {adapter.micro_batch} prompts, adapter on blocks {layers}: ours against plain PEFT (padded, "
                "every block, no shared prefix)",
                f"{times:.1f} times as fast ({statistics.median(seconds['ours']):.2f} against "
                f"{statistics.median(seconds['plain']):.2f} s); losses of {STEPS} steps from {losses['plain'][0]:.2f} to "
                f"{losses['plain'][-1]:.2f} differ by at most {gap:.3f} (bf16)",
                f">= {bar:g}" if bar else "",
                (times >= bar and gap < 0.1) if bar else None,
            )
        )
    return rows


def _plain_losses(lm, train, batch, wanted) -> torch.Tensor:
    """One padded forward pass of the rows, logits of the last position."""
    ids = [list(train.ids[row]) for row in batch.rows]
    longest = max(map(len, ids))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    logits = lm.model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]
    logprobs = choice_logprobs(logits, [train.choices[row] for row in batch.rows])
    right = wanted[list(batch.rows)]
    return -torch.where(right, logprobs[:, 0], logprobs[:, 1])
