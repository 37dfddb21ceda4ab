"""Data with a known direction in noise."""

import numpy as np


def planted(rows=200, features=50, strength=3.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    direction = rng.standard_normal(features)
    X = rng.standard_normal((rows, features)) + strength * np.outer(y - 0.5, direction / np.linalg.norm(direction))
    return X, y, direction
