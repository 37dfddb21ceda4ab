"""Every adapter kind on the default model for a few steps: `python -m benchmarks.kinds [KIND ...]`, a table of what each costs and
does. Kinds that can do something else on 4-bit weights (LoftQ) are shown there too."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from adapterprobe import load_model
from adapterprobe.adapters import adapter_off, attach, train_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.adapters.kinds import KINDS, rate_of
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.train import targets_of
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import AdapterProbeError
from benchmarks.workload import few_shot, model

PROMPTS, STEPS = 32, 16
HEAD = "| kind | parameters | rate | loss before | loss after | off equal | largest logit change | seconds |"


@torch.no_grad()
def _logits(engine: Engine, encoded) -> torch.Tensor:
    return torch.cat([engine.run(batch, states=False).logits.float() for batch in engine.plan(encoded.ids)])


def row(name: str, lm, encoded, rate: float | None = None, note: str = "") -> str:
    """One kind: parameters, loss on a fixed batch before and after, off equal to the bit, largest change of a logit, seconds."""
    engine = Engine(lm.model, lm.structure)
    few = encoded.subset(range(8))
    before = _logits(engine, few)
    config = AdapterConfig(
        kind=name, layers="33%-83%", rank=16, alpha=32, max_steps=STEPS, lr=rate, early_stopping=False
    )
    start = time.perf_counter()
    try:
        wrapped = attach(lm.model, lm.structure, config, 0, lm.original)
    except AdapterProbeError as error:
        return f"| {name}{note} | {error} | | | | | | |"
    try:
        targets = targets_of(wrapped, engine, encoded, config)
        first = measure(engine, encoded, targets, config)["loss"]
        with tempfile.TemporaryDirectory() as folder:
            result = train_adapter(wrapped, engine, encoded, few, config, 0, Path(folder))
        last = measure(engine, encoded, targets, config)["loss"]
        seconds = time.perf_counter() - start
        with adapter_off(lm.model):
            equal = torch.equal(before, _logits(engine, few))
        change = float((_logits(engine, few) - before).abs().max())
    except AdapterProbeError as error:
        return f"| {name}{note} | {error} | | | | | | |"
    finally:
        detach(wrapped)
    return (
        f"| {name}{note} | {result.parameters:,} | {rate_of(config):g} | {first:.3f} | {last:.3f} | {'yes' if equal else 'NO'} | "
        f"{change:.2f} | {seconds:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: all")
    parser.add_argument(
        "--rate", type=float, action="append", help="learning rates instead of the kinds' own (repeatable)"
    )
    args = parser.parse_args()
    print(f"{HEAD}\n{'|---' * (HEAD.count('|') - 1)}|")
    lm, encoded = model(), few_shot(PROMPTS)
    for name in args.kinds or KINDS:
        for rate in args.rate or [None]:
            print(row(name, lm, encoded, rate), flush=True)
    if "loftq" in (args.kinds or KINDS):
        print(row("loftq", load_model(quantize="4bit"), encoded, None, " on 4-bit weights"), flush=True)


if __name__ == "__main__":
    main()
