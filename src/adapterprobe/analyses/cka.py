"""How far two sets of hidden states differ, and whether what differs has to do with the truth."""

from __future__ import annotations

import numpy as np


def _hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Unbiased Hilbert-Schmidt independence criterion (Song et al. 2012, equation 5) of Gram matrices with an empty
    diagonal."""
    n = len(K)
    both = K.sum(0) @ L.sum(1)
    return float((np.sum(K * L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3)))


def linear_cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Centred kernel alignment with a linear kernel (Kornblith et al. 2019), without its bias for few rows (Nguyen et al.
    2021): 1 where one is a rotation of the other, about 0 where they have nothing to do with each other.

    Args:
        X, Y: rows x features of the same rows, at least 4.

    Returns:
        NaN where one of them does not vary.
    """
    grams = []
    for part in (X, Y):
        part = np.asarray(part, np.float64) - np.mean(part, axis=0, dtype=np.float64)
        gram = part @ part.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    own = [_hsic(gram, gram) for gram in grams]
    if min(own) <= 0:
        return float("nan")
    return _hsic(*grams) / float(np.sqrt(own[0] * own[1]))


def relative_change(X: np.ndarray, Y: np.ndarray) -> float:
    """Mean over rows of the length of the change from X to Y, as a share of X's length."""
    length = np.linalg.norm(X, axis=1)
    return float(np.mean(np.linalg.norm(Y - X, axis=1) / np.where(length > 0, length, 1)))


def class_share(D: np.ndarray, labels: np.ndarray, cells: np.ndarray) -> float:
    """Share of the variance within cells that lies between the two classes, corrected for chance (omega squared, Hays 1963):
    about 0 where labels have nothing to do with it, however many features there are.

    Args:
        D: rows x features.
        labels: 0 or 1; rows of a cell with one class only say nothing.
        cells: what the comparison is made within (data set and condition).
    """
    between = within = total = 0.0
    for cell in np.unique(cells):
        rows, mine = D[cells == cell].astype(np.float64), labels[cells == cell]
        n = np.array([(mine == 0).sum(), (mine == 1).sum()])
        if n.min() == 0 or len(mine) < 3:
            continue
        gap = rows[mine == 1].mean(0) - rows[mine == 0].mean(0)
        whole = float(((rows - rows.mean(0)) ** 2).sum())
        spread = float(gap @ gap) * n.prod() / n.sum()
        error = (whole - spread) / (len(mine) - 2)
        between += spread - error
        within += error
        total += whole
    return between / (total + within) if total > 0 else float("nan")
