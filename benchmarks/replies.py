"""(h) States pooled over replies, at all layers: against plain transformers with `output_hidden_states`, mean-pooled by hand."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import torch

from adapterprobe.engine import Engine
from adapterprobe.models import LanguageModel
from adapterprobe.readout import TokenReads
from benchmarks.workload import Row, model, ratio, relative_gap, side_by_side

BATCH = 16
REPLY = 40
"""Tokens of a reply."""
Spans = list[tuple[int, int]]


def workloads(vocabulary: int) -> dict[str, tuple[list[list[int]], Spans, float]]:
    """Token ids, reply spans and the bar, by title. Tokens are random: nothing here depends on what they say."""
    rng = np.random.default_rng(0)

    def some(count: int) -> list[int]:
        return rng.integers(10, vocabulary - 10, count).tolist()

    apart = [some(int(n)) for n in rng.integers(120, 360, 16)]
    contexts = [some(300) for _ in range(3)]
    eight = [[*context, *some(REPLY)] for context in contexts for _ in range(8)]
    system = some(250)
    prompted = [[*system, *some(50), *some(REPLY)] for _ in range(16)]
    found = {
        "transcripts that share nothing (120 to 360 tokens)": (apart, 1.0),
        "8 replies to each of 3 contexts of 300 tokens": (eight, 4.0),
        "one system prompt of 250 tokens, 16 questions": (prompted, 2.0),
    }
    return {title: (ids, [(len(row) - REPLY, len(row)) for row in ids], bar) for title, (ids, bar) in found.items()}


@torch.inference_mode()
def plain(lm: LanguageModel, ids: list[list[int]], spans: Spans) -> np.ndarray:
    """Padded batches in the given order, all hidden states of all tokens, the mean over each reply in fp32: layers x rows x width."""
    parts = []
    for start in range(0, len(ids), BATCH):
        rows = ids[start : start + BATCH]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        hidden = lm.model(
            input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        parts.append(
            torch.stack(
                [
                    torch.stack(
                        [
                            h[row, low:high].float().mean(0)
                            for row, (low, high) in enumerate(spans[start : start + BATCH])
                        ]
                    )
                    for h in hidden
                ]
            ).numpy()
        )
    return np.concatenate(parts, 1)


@torch.inference_mode()
def ours(engine: Engine, ids: list[list[int]], spans: Spans) -> np.ndarray:
    reads = (TokenReads(tuple(spans), "mean"),)
    states = np.zeros((engine.structure.n_layers + 1, len(ids), engine.structure.width), np.float32)
    for batch in engine.plan([tuple(row) for row in ids]):
        states[:, list(batch.rows)] = engine.run(batch, reads=reads).states.numpy()
    return states


def run() -> list[Row]:
    lm = model()
    engine = Engine(lm.model, lm.structure)
    rows = []
    for title, (ids, spans, bar) in workloads(lm.structure.vocabulary).items():
        seconds, results = side_by_side(
            {"plain": lambda i=ids, s=spans: plain(lm, i, s), "ours": lambda i=ids, s=spans: ours(engine, i, s)},
            rounds=2,
        )
        times = ratio(seconds["plain"], seconds["ours"])
        # transformers' last hidden state is behind the final norm.
        gap = relative_gap(results["ours"][:-1], results["plain"][:-1])
        rows.append(
            Row(title, f"{times:.1f} times as fast; mean difference {gap:.1e} of mean size ({lm.model.dtype})".replace("torch.", ""), f">= {bar:g}", times >= bar and gap < 0.05)
        )  # fmt: skip
    return [*rows, *_memory()]


def _memory() -> list[Row]:
    """Peak memory of a process of each kind, on few and on many rows that share nothing."""
    peak = {
        (side, count): float(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.replies", side, str(count)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-1]
        )
        for side in ("ours", "plain")
        for count in (16, 48)
    }
    grown = peak["ours", 48] - peak["ours", 16]
    below = peak["ours", 48] < peak["plain", 48]
    return [
        Row(
            "peak memory, 16 and 48 transcripts of 360 tokens: ours, plain",
            f"{peak['ours', 16]:.2f} and {peak['ours', 48]:.2f} GiB, {peak['plain', 16]:.2f} and {peak['plain', 48]:.2f} GiB",
            "ours does not grow (0.1 GiB), and is below plain's",
            grown < 0.1 and below,
        )
    ]


def _once(side: str, count: int) -> None:
    lm = model()
    rng = np.random.default_rng(0)
    ids = [rng.integers(10, lm.structure.vocabulary - 10, 360).tolist() for _ in range(count)]
    spans = [(320, 360)] * count
    if side == "plain":
        plain(lm, ids, spans)
    else:
        ours(Engine(lm.model, lm.structure), ids, spans)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    _once(sys.argv[1], int(sys.argv[2]))
