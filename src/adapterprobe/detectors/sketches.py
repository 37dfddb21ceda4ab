"""States in few numbers: random projections, by which a bundle stays small and two machines' states can be compared.

Distances and angles stay nearly what they were (Johnson & Lindenstrauss 1984).
"""

from __future__ import annotations

import hashlib

import numpy as np

SKETCH, REFERENCE = 64, 128
"""Numbers of a golden row's state, and of a state that novelty is told by."""


def projected(states: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Rows x size (or x width, where that is smaller), fp32."""
    width = states.shape[1]
    if width <= size:
        return np.asarray(states, np.float32)
    directions = np.random.default_rng([seed, width, size]).standard_normal((width, size)) / np.sqrt(size)
    return (np.asarray(states, np.float64) @ directions).astype(np.float32)


def distance(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """How far states lie apart, in lengths of the first: by row."""
    return np.linalg.norm(one - two, axis=1) / np.maximum(np.linalg.norm(one, axis=1), 1e-12)


def checksum(states: np.ndarray) -> str:
    """Of states rounded to bf16's precision."""
    rounded = (np.ascontiguousarray(states, np.float32).view(np.uint32) + np.uint32(0x8000)) >> 16
    return hashlib.sha256(rounded.astype(np.uint16).tobytes()).hexdigest()[:24]
