"""Hidden states on disk: one file, layer after layer, so that a layer is read without the others."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from adapterprobe.cache import reserve, write_atomic
from adapterprobe.errors import CacheError

NUMPY_TYPES = {"bf16": np.uint16, "fp16": np.float16, "fp32": np.float32}
"""bf16 is kept as the upper half of an fp32: exactly what was computed, at half the size."""


def to_stored(tensor: torch.Tensor, dtype: str) -> np.ndarray:
    tensor = tensor.cpu()
    if dtype == "bf16":
        return tensor.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return tensor.to(torch.float16 if dtype == "fp16" else torch.float32).numpy()


def from_stored(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, dtype=np.float32)


@dataclass(frozen=True)
class HiddenStates:
    """States and answers of a list of prompts, in their order."""

    folder: Path
    rows: int
    layers: tuple[int, ...]
    width: int
    dtype: str
    reads: int = 1
    """How many states there are of each prompt (see `read`)."""
    which: int = 0
    """The one of them that `layer` gives."""
    below: HiddenStates | None = None
    """Where the layers are that this store need not repeat: those below an adapter are the base model's."""

    @property
    def key(self) -> str:
        """Names its content."""
        own = self.folder.name + (f"@{self.which}" if self.which else "")
        return own + (f"+{self.below.key}" if self.below else "")

    def read(self, which: int) -> HiddenStates:
        """The same prompts, read elsewhere: the states of `reads[which]` that they were recorded with."""
        return replace(self, which=which, below=self.below.read(which) if self.below else None)

    def layer(self, index: int) -> np.ndarray:
        """Hidden state `index` of every prompt: rows x width, fp32.

        Raises:
            CacheError: that layer was not recorded.
        """
        if index not in self.layers and self.below is not None:
            return self.below.layer(index)
        if index not in self.layers:
            raise CacheError(f"layer {index} was not recorded in {self.folder}; there are {self.layers}")
        rows = slice(self.which * self.rows, (self.which + 1) * self.rows)
        return from_stored(np.array(self._map("r")[self.layers.index(index), rows]))

    @property
    def logprobs(self) -> np.ndarray:
        """Log-probability of (positive, negative) choice: rows x 2, fp32."""
        return np.load(self.folder / "answers.npy")

    @property
    def prompts(self) -> pd.DataFrame:
        """A row per prompt, in the order of the states: text as tokenised, labels, groups (where `extract` wrote the folder).

        Raises:
            CacheError: there is no such table in the folder.
        """
        path = self.folder / "prompts.parquet"
        if not path.is_file():
            raise CacheError(f"no {path.name} in {self.folder}; `extract` writes it beside the states")
        return pd.read_parquet(path)

    def _map(self, mode: Literal["r", "r+", "w+"]) -> np.memmap:
        shape = (len(self.layers), self.reads * self.rows, self.width)
        return np.memmap(self.folder / "states.bin", NUMPY_TYPES[self.dtype], mode, shape=shape)


def create(folder: Path, rows: int, layers: list[int], width: int, dtype: str, reads: int = 1) -> HiddenStates:
    """An empty store to be filled, or the unfinished one that is there."""
    states = HiddenStates(folder, rows, tuple(layers), width, dtype, reads)
    content = {"rows": rows, "layers": layers, "width": width, "dtype": dtype}
    meta = json.dumps(content if reads == 1 else content | {"reads": reads})
    path = folder / "meta.json"
    if not path.exists() or path.read_text("utf-8") != meta:
        if layers:
            reserve(folder / "states.bin", len(layers) * reads * rows * width * np.dtype(NUMPY_TYPES[dtype]).itemsize)
        np.save(folder / "answers.npy", np.zeros((rows, 2), np.float32))
        for mark in folder.glob("*-batches"):
            mark.unlink()
        write_atomic(path, meta)
    return states


def open_states(folder: str | Path) -> HiddenStates:
    """Open a finished store.

    Raises:
        CacheError: there is none in the folder.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"no hidden states in {folder} ({error}); record them first") from error
    layers = tuple(meta["layers"])
    return HiddenStates(folder, meta["rows"], layers, meta["width"], meta["dtype"], meta.get("reads", 1))
