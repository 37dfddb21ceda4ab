"""What every peer's script does around its own recorder. Imported by path: the peers know nothing of this project."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

MODEL, WORK = sys.argv[1], Path(sys.argv[2])
LAYER = 14
"""The block whose output is compared: what leaves the fifteenth, our state 15."""


def padded_batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and attention mask of 16 prompts at a time, padded on the left."""
    ids = json.loads((WORK / "ids.json").read_text())
    for start in range(0, len(ids), 16):
        rows = ids[start : start + 16]
        longest = max(map(len, rows))
        tokens = [[0] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        yield torch.tensor(tokens), torch.tensor(mask)


def time_and_save(extract: Callable[[], np.ndarray]) -> None:
    """One pass untimed, one timed; its states go to states.npy, its seconds to the terminal."""
    extract()
    start = time.perf_counter()
    found = extract()
    seconds = time.perf_counter() - start
    np.save(WORK / "states.npy", found)
    print(seconds)
