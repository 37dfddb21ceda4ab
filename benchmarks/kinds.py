"""Every adapter kind on the default model for a few steps: `python -m benchmarks.kinds`, a table of what each costs and does."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from adapterprobe.adapt import adapter_off, attach, train_adapter
from adapterprobe.adapt.attach import detach
from adapterprobe.adapt.kinds import KINDS
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import AdapterProbeError
from benchmarks.workload import few_shot, model

PROMPTS, EPOCHS = 16, 3
RATE = 1e-3


@torch.no_grad()
def _logits(engine: Engine, encoded) -> torch.Tensor:
    return torch.cat([engine.run(batch, states=False).logits.float() for batch in engine.plan(encoded.ids)])


def row(name: str) -> str:
    """One kind: parameters, loss of the first and the last epoch, off equal to the bit, largest change of a logit, seconds."""
    lm = model()
    engine = Engine(lm.model, lm.structure)
    encoded = few_shot(PROMPTS)
    few = encoded.subset(range(8))
    before = _logits(engine, few)
    config = AdapterConfig(kind=name, layers="33%-83%", rank=16, alpha=32, epochs=EPOCHS, lr=RATE, patience=EPOCHS)
    start = time.perf_counter()
    try:
        wrapped = attach(lm.model, lm.structure, config, 0)
    except AdapterProbeError as error:
        return f"| {name} | {error} | | | | |"
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = train_adapter(wrapped, engine, encoded, few, config, 0, Path(folder))
        seconds = time.perf_counter() - start
        with adapter_off(lm.model):
            equal = torch.equal(before, _logits(engine, few))
        change = float((_logits(engine, few) - before).abs().max())
    except AdapterProbeError as error:
        return f"| {name} | {error} | | | | |"
    finally:
        detach(wrapped)
    losses = [epoch["train_loss"] for epoch in result.epochs]
    return (
        f"| {name} | {result.parameters:,} | {losses[0]:.3f} | {losses[-1]:.3f} | {'yes' if equal else 'NO'} | {change:.2f} | "
        f"{seconds:.1f} |"
    )


def main() -> None:
    print("| kind | parameters | loss, first epoch | loss, last epoch | off equal | largest logit change | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in KINDS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
