"""(k) vLLM: replies that are scored while they are written, and prompts that are read, beside vLLM alone and beside our engine.

In an environment that has vLLM (`make .venv-vllm/.installed`): `.venv-vllm/bin/python -m benchmarks vllm`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from adapterprobe.detectors.detector import Detector
from adapterprobe.integrations.vllm_detector import VllmModel
from benchmarks.detectors import bundle, talks
from benchmarks.workload import Row, model, ratio, side_by_side

QUESTIONS, NEW = 32, 64


def run() -> list[Row]:
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]: an extra

    lm = model()
    with tempfile.TemporaryDirectory() as name:
        folder = bundle(lm, Path(name) / "d15", 15)
        here = Detector.load(folder, lm, verify=False)
        there = VllmModel(dtype="auto", max_length=512)
        try:
            d = Detector.load(folder, there)
            asked = [[{"role": "user", "content": f"Tell me about the number {n}."}] for n in range(QUESTIONS)]
            ids = [
                {"prompt_token_ids": lm.tokenizer.apply_chat_template(q, add_generation_prompt=True)["input_ids"]}
                for q in asked
            ]
            params = SamplingParams(max_tokens=NEW + 1, temperature=0.0)
            rows = talks()
            seconds, found = side_by_side(
                {
                    "plain": lambda: there._engine.generate(ids, params, use_tqdm=False),
                    "scored": lambda: there.generate([d], asked, max_tokens=NEW),
                    "read": lambda: d.score(rows),
                    "own": lambda: here.score(rows),
                },
                rounds=5,
            )
        finally:
            there.close()
    overhead = ratio(seconds["scored"], seconds["plain"]) - 1
    tokens = sum(len(reply.tokens[0]) for reply in found["scored"])
    apart = np.abs(found["read"]["score"] - found["own"]["score"]).max()
    return [
        Row(f"{QUESTIONS} replies of up to {NEW} tokens, each scored, against vLLM's replies alone (eager, as hooks need it)", f"{overhead:+.0%} ({tokens / min(seconds['scored']):.0f} tokens/s)", "", None),
        Row(f"score of {len(rows)} conversations by vLLM against our engine", f"{ratio(seconds['read'], seconds['own']):.1f} times the time; scores apart by up to {apart:.2g}", "", None),
    ]  # fmt: skip
