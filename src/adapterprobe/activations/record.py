"""Record hidden states and answers of prompts into the cache, going on where a stopped recording was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from adapterprobe.activations.store import HiddenStates, create, open_states, to_stored
from adapterprobe.cache import digest, entry, write_atomic
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.engine.output import check_finite
from adapterprobe.models.hardware import dtype_name
from adapterprobe.progress import bar, say
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import read_rows, stored_dtype

ENGINE_VERSION = 2
"""Raise when recorded values change for the same inputs."""

FLUSHED, WRITTEN = "finished-batches", "written-batches"
"""Marks of progress: batches that are on disk, and batches that the system has taken. The second survives a kill, but
not a power cut, which may keep the mark and lose the data: it counts only while the machine has not been started anew."""

FLUSH_EVERY = 2.0
"""Seconds between two flushes: what a power cut may lose."""


def _boot() -> str:
    """Which start of the machine this is; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _finished(folder: Path) -> int:
    """Batches that need not be computed again."""
    flushed = folder / FLUSHED
    done = int(flushed.read_text()) if flushed.exists() else 0
    if (folder / WRITTEN).exists():
        number, _, boot = (folder / WRITTEN).read_text().partition(" ")
        if boot and boot == _boot():
            done = max(done, int(number))
    return done


def record(
    engine: Engine,
    encoded: Encoded,
    weights: str,
    layers: list[int],
    what: str = "recording",
    token_budget: int = 2048,
    trunk: Callable[[], LowerBlockCache | None] | None = None,
    feed: LowerBlockCache | None = None,
) -> HiddenStates:
    """Hidden states (of `layers`; none for answers alone), and choice log-probabilities at the answer position (NaN where
    nothing is asked). States are those at the answer position, or in the same pass what `encoded.reads` names.

    Args:
        weights: content hash of everything that decides the outcome beside the prompts: model and adapter.
        trunk: gives the states below an adapter, asked for only if something is left to compute.
        feed: a trunk that is to keep what passes by.

    Raises:
        ModelError: a state or logit is not finite, or a single prompt does not fit into memory.
    """
    reads = encoded.reads if layers else ()
    dtype = dtype_name(next(engine.model.parameters()).dtype)
    content = [list(encoded.ids), [(c.positive, c.negative) for c in encoded.choices]]
    shared = [engine.share, trunk is not None, token_budget]
    where = [[(read.pool, read.spans) for read in reads]] if reads else []
    stored = stored_dtype(reads, dtype)
    key = digest(weights, digest(content), layers, dtype, shared, ENGINE_VERSION, *where)

    def make(folder: Path) -> None:
        store = create(folder, len(encoded), layers, engine.structure.width, stored, max(1, len(reads)))
        batches = engine.plan(encoded.ids, token_budget)
        done = _finished(folder)
        states = store._map("r+") if layers else None
        answers = np.load(folder / "answers.npy", mmap_mode="r+")
        flushed = time.monotonic()
        begun = sum(len(batch.rows) for batch in batches[:done])
        with (
            engine.starting_from(trunk() if trunk else None),
            bar(len(encoded), what, done=begun) as progress,
            torch.inference_mode(),
        ):
            for number, batch in enumerate(batches[done:], done + 1):
                output = engine.run_in_parts(batch, states=bool(layers), layers=layers, reads=reads, feed=feed)
                check_finite(output, what)
                rows = list(batch.rows)
                if states is not None:
                    states[:, read_rows(reads, rows, len(encoded))] = to_stored(output.recorded, stored)
                choices = [encoded.choices[r] for r in rows]
                asked = all(choice.positive for choice in choices)
                answers[rows] = choice_logprobs(output.logits, choices).cpu().numpy() if asked else np.nan
                progress.update(len(rows))
                write_atomic(folder / WRITTEN, f"{number} {_boot()}")
                if time.monotonic() - flushed > FLUSH_EVERY or number == len(batches):
                    flushed = time.monotonic()
                    for array in (states, answers):
                        if array is not None:
                            array.flush()  # pyright: ignore[reportAttributeAccessIssue]: np.load gives a memmap here
                    write_atomic(folder / FLUSHED, str(number))

    return open_states(entry("states", key, make, notice=say))
