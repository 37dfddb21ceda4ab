"""Labels of single tokens: of a reply whose false ranges are marked, theirs; of any other, its row's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import Span


def has_false_spans(encoded: Encoded) -> bool:
    """Whether any reply's false tokens are marked."""
    return any(encoded.false)


def token_labels(encoded: Encoded, spans: Sequence[Span]) -> list[np.ndarray]:
    """For each prompt the labels (0 or 1) of its tokens in `spans`: where false ranges are marked and the reply is deceptive, 1
    inside of them and 0 outside; else the row's label."""
    found = []
    for row, (prompt, (start, stop)) in enumerate(zip(encoded.prompts, spans, strict=True)):
        marked = encoded.false[row] if encoded.false else ()
        labels = np.full(stop - start, int(prompt.example.truth), np.int64)
        if marked and prompt.example.truth:
            labels[:] = 0
            for low, high in marked:
                labels[max(0, low - start) : max(0, high - start)] = 1
        found.append(labels)
    return found


def last_token_labels(encoded: Encoded, count: int) -> np.ndarray | None:
    """The same for the last `count` tokens of what is read of each prompt, as probes over tokens see them: rows x count, 0 in front of
    what is shorter. None where no false tokens are marked."""
    if not has_false_spans(encoded) or not encoded.reads:
        return None
    spans = [(max(start, stop - count), stop) for start, stop in encoded.reads[0].spans]
    found = np.zeros((len(encoded), count), np.int64)
    for row, labels in enumerate(token_labels(encoded, spans)):
        found[row, count - len(labels) :] = labels
    return found
