"""(c) How near useful tokens come to the machine's bf16 matrix products."""

from __future__ import annotations

import statistics
import time

from adapterprobe.engine import Engine, useful_tokens
from benchmarks.extraction import engine_pass
from benchmarks.workload import Row, demo, few_shot, flops_per_token, matmul_peak, model


def run() -> list[Row]:
    lm = model()
    engine = Engine(lm.model, lm.structure)
    rows = []
    for title, encoded in (("the demo's prompts", demo()[1]), ("1,200 four-shot prompts", few_shot(1200))):
        useful = useful_tokens(engine.plan(encoded.ids))
        linear = useful * flops_per_token(lm)
        # As model FLOPs are usually counted (Chowdhery et al. 2022, appendix B): attention over what a token may
        # see, and the logits that are read.
        work = linear + attention_flops(engine, encoded) + 2 * len(encoded) * lm.structure.head.weight.numel()
        engine_pass(engine, encoded.subset(range(64)))
        shares, reached = [], []
        for _ in range(3):
            peak = matmul_peak(lm.dtype, rounds=2)
            start = time.perf_counter()
            engine_pass(engine, encoded)
            seconds = time.perf_counter() - start
            after = matmul_peak(lm.dtype, rounds=2)
            reached.append(work / seconds / 1e9)
            shares.append(reached[-1] / max(peak, after))
        share = statistics.median(shares)
        rows.append(
            Row(
                f"share of the bf16 peak, {title} ({useful} useful of {sum(map(len, encoded.ids))} tokens)",
                f"{share:.0%} ({statistics.median(reached):.0f} GFLOP/s; {share * linear / work:.0%} counting the linear maps of "
                "the blocks alone)",
                ">= 55 %",
                share >= 0.55,
            )
        )
    return rows


def attention_flops(engine: Engine, encoded) -> int:
    """Scores and weighted sums of every useful token over the tokens it may see, in all blocks."""
    seen = 0
    prefixes = set()
    for batch in engine.plan(encoded.ids):
        for group in batch.groups:
            prefixes.add(group.prefix)
            seen += sum(len(s) * len(group.prefix) + len(s) * (len(s) + 1) // 2 for s in group.suffixes)
    seen += sum(len(p) * (len(p) + 1) // 2 for p in prefixes)
    return 4 * seen * engine.structure.width * engine.structure.n_layers
