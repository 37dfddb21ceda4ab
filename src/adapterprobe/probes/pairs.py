"""Contrast pairs: the same question with the right and with a wrong answer, or asked and negated."""

from __future__ import annotations

import numpy as np


def paired(pairs: np.ndarray, polarity: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(first, second): row numbers of the members of each pair.

    The affirmative member comes first where pairs have one of each polarity; else the order is drawn, so that it says nothing
    of the labels. Of more than two rows of a number, as many pairs are made as there are whole ones.

    Raises:
        ValueError: no two rows share a number.
    """
    order = rng.permutation(len(pairs))
    first, second = [], []
    for number in np.unique(pairs[pairs >= 0]):
        members = order[pairs[order] == number]
        if polarity is not None:
            up, down = members[polarity[members] > 0], members[polarity[members] < 0]
            if len(up) and len(down):
                count = min(len(up), len(down))
                first.extend(up[:count])
                second.extend(down[:count])
                continue
        count = len(members) // 2
        first.extend(members[:count])
        second.extend(members[count : 2 * count])
    if not first:
        raise ValueError("pairs has no two rows with the same number; give each contrast pair a number of its own")
    return np.array(first), np.array(second)


def drawn(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Any two rows as a pair, drawn without looking at labels."""
    order = rng.permutation(rows)
    count = rows // 2
    return order[:count], order[count : 2 * count]


def drawn_by_label(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A row of each label as a pair, in drawn order; the rarer label's rows are used more than once."""
    yes, no = (rng.permutation(np.flatnonzero(y == label)) for label in (1, 0))
    count = max(len(yes), len(no))
    yes, no = np.resize(yes, count), np.resize(no, count)
    swap = rng.random(count) < 0.5
    return np.where(swap, no, yes), np.where(swap, yes, no)
