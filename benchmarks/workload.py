"""What is measured: the demo's own model and prompts, and how times are taken."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.prompts.dataset_prompts import DatasetSpec, dataset_prompts
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table."""

    what: str
    value: str
    bar: str = ""
    met: bool | None = None


@cache
def model(dtype: str = "auto") -> LanguageModel:
    return load_model(dtype=dtype)


def few_shot(limit: int, shots: int = 4) -> Encoded:
    """Prompts of capitals under truth and lie: with shots they share few prefixes, without next to nothing."""
    lm = model()
    found = []
    for seed in range(99):
        found += dataset_prompts(DatasetSpec("capitals", shots=shots, seed=seed), lm.tokenizer)
        if len(found) >= limit:
            break
    return encode(lm.tokenizer, found[:limit], lm.context_length, lm.vocabulary)


def demo() -> tuple[RunConfig, Encoded]:
    """The demo's configuration and prompts."""
    config, lm = read_config("demo"), model()
    prompts, _ = prepare_prompts(config, prepare_questions(config), lm.tokenizer)
    return config, encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)


def side_by_side(
    sides: dict[str, Callable[[], object]], rounds: int = 3
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Seconds of each side, taken in turns after one untimed round, and what the sides returned last."""
    results = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            results[name] = side()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over rounds of how many times as fast the second is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def matmul_peak(dtype: torch.dtype, rounds: int = 4) -> float:
    """GFLOP/s of the best square matrix product of 256 to 4096; sizes end where one takes over a second (bf16 without its instructions)."""
    best = 0.0
    for size in (256, 1024, 2048, 4096):
        a = torch.randn(size, size, dtype=dtype)
        for _ in range(rounds):
            start = time.perf_counter()
            a @ a
            seconds = time.perf_counter() - start
            best = max(best, 2 * size**3 / seconds / 1e9)
            if seconds > 1:
                return best
    return best


def flops_per_token(lm: LanguageModel) -> int:
    """Of the linear maps in the blocks, one multiplication and one addition a weight."""
    return 2 * sum(
        m.weight.numel() for block in lm.structure.blocks for m in block.modules() if isinstance(m, torch.nn.Linear)
    )


def padded_pass(lm: LanguageModel, encoded: Encoded, batch_size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The plain way: padded batches in the given order, all hidden states, the last token of each.

    Returns logits' choice of the answer position (rows x vocabulary is too much: their argmax) and states
    (layers x rows x width).
    """
    return transformers_pass(lm.model, [list(ids) for ids in encoded.ids], batch_size)


@torch.inference_mode()
def transformers_pass(net, ids: list[list[int]], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    top, states = [], []
    for start in range(0, len(ids), batch_size):
        rows = ids[start : start + batch_size]
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = net(input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)
        top.append(out.logits[:, -1].argmax(-1).numpy())
        states.append(torch.stack([h[:, -1] for h in out.hidden_states]).float().numpy())
    return np.concatenate(top), np.concatenate(states, 1)


def relative_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference relative to the mean absolute value."""
    return float(np.abs(a - b).mean() / np.abs(b).mean())


def machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
