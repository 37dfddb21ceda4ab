"""Hidden states of a few prompts, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from adapterprobe.activations.store import from_stored, to_stored
from adapterprobe.engine import Engine
from adapterprobe.engine.answers import choice_logprobs
from adapterprobe.engine.output import check_finite
from adapterprobe.models.hardware import dtype_name
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import read_rows, stored_dtype


@dataclass(frozen=True)
class MemoryStates:
    """What `HiddenStates` gives, without a folder."""

    states: dict[int, np.ndarray]
    logprobs: np.ndarray
    reads: int = 1
    which: int = 0

    def read(self, which: int) -> MemoryStates:
        """The same prompts, read elsewhere (see `HiddenStates.read`)."""
        return replace(self, which=which)

    def layer(self, index: int) -> Float[np.ndarray, "rows width"]:
        """Rows x width, fp32."""
        rows = len(self.logprobs)
        return self.states[index][self.which * rows : (self.which + 1) * rows]


@torch.inference_mode()
def states_in_memory(engine: Engine, encoded: Encoded, layers: Sequence[int], what: str) -> MemoryStates:
    """The values that `record` would keep (answers are NaN where nothing is asked).

    Args:
        layers: none for answers alone.

    Raises:
        ModelError: a state or logit is not finite, or a single prompt does not fit into memory.
    """
    reads = encoded.reads
    dtype = stored_dtype(reads, dtype_name(next(engine.model.parameters()).dtype))
    count = max(1, len(reads))
    found = np.zeros((len(layers), count * len(encoded), engine.structure.width), np.float32)
    logprobs = np.zeros((len(encoded), 2), np.float32)
    for batch in engine.plan(encoded.ids):
        output = engine.run_in_parts(batch, states=bool(layers), layers=list(layers), reads=reads if layers else ())
        check_finite(output, what)
        rows = list(batch.rows)
        if layers:
            found[:, read_rows(reads, rows, len(encoded))] = from_stored(to_stored(output.recorded, dtype))
        choices = [encoded.choices[r] for r in rows]
        asked = all(choice.positive for choice in choices)
        logprobs[rows] = choice_logprobs(output.logits, choices).cpu().numpy() if asked else np.nan
    return MemoryStates(dict(zip(layers, found, strict=True)), logprobs, count)
