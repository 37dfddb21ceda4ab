"""(i) Replies, 8 to each prompt, behind a system prompt of 200 tokens: against a plain loop of transformers' `generate` over the prompts."""

from __future__ import annotations

import numpy as np
import torch
from transformers import GenerationConfig

from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling, plan_writing, write_replies
from adapterprobe.models import LanguageModel
from benchmarks.workload import Row, model, ratio, side_by_side

PROMPTS, SAMPLES, PREFIX, QUESTION, NEW = 4, 8, 200, 20, 24


def prompts(vocabulary: int) -> list[tuple[int, ...]]:
    """Token ids: a shared system prompt, and a question each. Tokens are random: nothing here depends on what they say."""
    rng = np.random.default_rng(0)
    system = rng.integers(10, vocabulary - 10, PREFIX).tolist()
    return [(*system, *rng.integers(10, vocabulary - 10, QUESTION).tolist()) for _ in range(PROMPTS)]


@torch.inference_mode()
def plain(lm: LanguageModel, ids: list[tuple[int, ...]], samples: int, sampled: bool) -> list[list[int]]:
    """One prompt after the other, all its samples as one batch; nothing ends a reply."""
    settings = GenerationConfig(
        max_new_tokens=NEW, do_sample=sampled, num_return_sequences=samples, eos_token_id=None, pad_token_id=0
    )
    found = []
    for row in ids:
        tokens = torch.tensor([row])
        whole = lm.model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
        found += whole[:, len(row) :].tolist()
    return found


def ours(engine: Engine, ids: list[tuple[int, ...]], samples: int, temperature: float) -> list[list[int]]:
    sampling = Sampling(samples, temperature, 1.0, NEW)
    found: dict[tuple[int, int], list[int]] = {}
    for batch in plan_writing(ids, sampling):
        *_, replies = write_replies(engine, [ids[i] for i in batch], [str(i) for i in batch], sampling, ())
        found |= {(batch[reply.prompt], reply.sample): list(reply.tokens) for reply in replies}
    return [found[key] for key in sorted(found)]


def run() -> list[Row]:
    lm = model()
    engine = Engine(lm.model, lm.structure)
    ids = prompts(lm.structure.vocabulary)
    seconds, _ = side_by_side(
        {"plain": lambda: plain(lm, ids, SAMPLES, True), "ours": lambda: ours(engine, ids, SAMPLES, 1.0)}, rounds=1
    )
    times = ratio(seconds["plain"], seconds["ours"])
    expected, got = plain(lm, ids, 1, False), ours(engine, ids, 1, 0.0)
    same = sum(a == b for a, b in zip(got, expected, strict=True))
    exact = lm.model.dtype == torch.float32
    return [
        Row(
            f"{PROMPTS} prompts, {SAMPLES} samples of {NEW} tokens",
            f"{times:.1f} times as fast ({PROMPTS * SAMPLES * NEW / min(seconds['ours']):.0f} tokens a second)",
            ">= 2.5",
            times >= 2.5,
        ),
        # In bf16 a rounding may turn a tie, and everything behind it.
        Row(f"greedy replies equal, token for token ({lm.model.dtype})".replace("torch.", ""), f"{same} of {PROMPTS}", f"{PROMPTS} in fp32", same == PROMPTS if exact else None),
    ]  # fmt: skip
