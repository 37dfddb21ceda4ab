"""Record hidden states and answers of prompts into the cache, going on where a stopped recording was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from adapterprobe.cache import digest, entry, write_atomic
from adapterprobe.engine import Engine, Trunk
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.engine.forward import check_finite
from adapterprobe.hidden.store import HiddenStates, create, open_states, to_stored
from adapterprobe.models.encode import Encoded
from adapterprobe.models.hardware import dtype_name
from adapterprobe.progress import bar, say

ENGINE_VERSION = 2
"""Raise when recorded values change for the same inputs."""

FLUSH_EVERY = 2.0
"""Seconds between two marks of progress on disk: what a stopped recording may lose."""


def record(
    engine: Engine,
    encoded: Encoded,
    weights: str,
    layers: list[int],
    what: str = "recording",
    token_budget: int = 2048,
    trunk: Callable[[], Trunk] | None = None,
    feed: Trunk | None = None,
) -> HiddenStates:
    """Hidden states (of `layers`; none for answers alone) and choice log-probabilities at the answer position.

    Args:
        weights: content hash of everything that decides the outcome beside the prompts: model and adapter.
        trunk: gives the states below an adapter, asked for only if something is left to compute.
        feed: a trunk that is to keep what passes by.

    Raises:
        ModelError: a state or logit is not finite.
    """
    dtype = dtype_name(next(engine.model.parameters()).dtype)
    content = [list(encoded.ids), [(c.positive, c.negative) for c in encoded.choices]]
    shared = [engine.share, trunk is not None, token_budget]
    key = digest(weights, digest(content), layers, dtype, shared, ENGINE_VERSION)

    def make(folder: Path) -> None:
        store = create(folder, len(encoded), layers, engine.structure.width, dtype)
        batches = engine.plan(encoded.ids, token_budget)
        mark = folder / "finished-batches"
        done = int(mark.read_text()) if mark.exists() else 0
        states = store._map("r+") if layers else None
        answers = np.load(folder / "answers.npy")
        flushed = time.monotonic()
        begun = sum(len(batch.rows) for batch in batches[:done])
        with (
            engine.starting_from(trunk() if trunk else None),
            bar(len(encoded), what, done=begun) as progress,
            torch.inference_mode(),
        ):
            for number, batch in enumerate(batches[done:], done + 1):
                with feed.listening(engine, batch) if feed else contextlib.nullcontext():
                    output = engine.run(batch, states=bool(layers), layers=layers)
                check_finite(output, what)
                rows = list(batch.rows)
                if states is not None:
                    states[:, rows] = to_stored(output.states, dtype)
                answers[rows] = choice_logprobs(output.logits, [encoded.choices[r] for r in rows]).cpu().numpy()
                progress.update(len(rows))
                if time.monotonic() - flushed > FLUSH_EVERY or number == len(batches):
                    flushed = time.monotonic()
                    if states is not None:
                        states.flush()
                    part = folder / "answers.part.npy"
                    np.save(part, answers)
                    part.replace(folder / "answers.npy")
                    write_atomic(mark, str(number))

    return open_states(entry("states", key, make, notice=say))
