"""Hidden states of the last tokens of every prompt, at a few layers: what a probe over positions sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adapterprobe.activations.record import ENGINE_VERSION
from adapterprobe.activations.store import from_stored, to_stored
from adapterprobe.cache import digest, entry
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.errors import ModelError
from adapterprobe.models.hardware import dtype_name
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded


@dataclass(frozen=True)
class TokenStates:
    """States of a list of prompts at their last tokens, the answer position last; of prompts that are read at their own tokens, at
    the last of these."""

    folders: dict[int, Path]

    def layer(self, index: int) -> np.ndarray:
        """Rows x tokens x width, fp32; nought in front of prompts that are shorter."""
        return from_stored(np.load(self.folders[index] / "tokens.npy"))


def record_tokens(
    engine: Engine, encoded: Encoded, weights: str, layers: Sequence[int], count: int, what: str
) -> TokenStates:
    """States after `layers` blocks at the last `count` tokens, of the prompt or of what is read of it; the blocks above a layer are
    not run.

    Args:
        layers: from 1 to the number of blocks less one.
        weights: content hash of everything that decides the outcome beside the prompts: model and adapter.

    Raises:
        ModelError: a prompt does not fit into memory.
    """
    dtype = dtype_name(next(engine.model.parameters()).dtype)
    ends = encoded.reads[0].spans if encoded.reads else tuple((0, len(ids)) for ids in encoded.ids)
    prompts = digest([list(ids) for ids in encoded.ids], *([ends] if encoded.reads else []))
    folders = {}
    for layer in layers:

        def make(folder: Path, layer: int = layer) -> None:
            batches = engine.plan(encoded.ids)
            trunk = LowerBlockCache(layer, engine, batches)
            trunk.collect(engine, f"{what}, tokens at layer {layer}")
            if not all(map(trunk.knows, batches)):
                raise ModelError(
                    f"{what}: memory ran out so often that states of tokens at layer {layer} found no room; use shorter texts or a larger device"
                )
            states = torch.zeros(len(encoded), count, engine.structure.width, dtype=trunk.dtype)
            for row, (ids, (start, stop)) in enumerate(zip(encoded.ids, ends, strict=True)):
                last = trunk.states_between(tuple(ids), max(start, stop - count), stop)
                states[row, count - len(last) :] = last
            np.save(folder / "tokens.npy", to_stored(states, dtype))

        key = digest(weights, prompts, layer, count, dtype, engine.share, ENGINE_VERSION)
        folders[layer] = entry("tokens", key, make, notice=say)
    return TokenStates(folders)
