"""A detector held against every token of one reply or statement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.errors import DataError
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.types import Prompt

if TYPE_CHECKING:
    from adapterprobe.detectors.detector import Detector


def token_probability(detector: Detector) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """(layer, probability of label 1 from the states of single tokens).

    Raises:
        DataError: the detector has none.
    """
    needs = detector.needs
    if needs.head is not None:
        return needs.head.layer, needs.head.probability
    probe, seen = needs.probe, detector.record.seen
    arm = detector.record.arm.partition("@")[0]
    if probe is not None and seen is not None and arm in ("base+probe", "adapter+probe"):
        if hasattr(probe, "token_log_odds"):
            return seen.layer, lambda states: expit(probe.token_log_odds(states))  # pyright: ignore[reportAttributeAccessIssue]
        if seen.kind == "layer":
            return seen.layer, lambda states: probe.predict_proba(states)[:, 1]
    raise DataError(
        f"{detector.record.name} has no score for a single token: pack a detector of base+probe, adapter+probe or adapter+head whose probe "
        "reads one state at one layer, such as logistic"
    )


@torch.no_grad()
def token_scores(detector: Detector, prompt: Prompt) -> pd.DataFrame:
    """See `Detector.tokens`."""
    if prompt.read is None:
        raise DataError(f"{detector.record.name} reads the answer that is about to be given, which has no tokens yet")
    layer, probability = token_probability(detector)
    encoded = detector.encoded([prompt])
    states = states_of_tokens(detector, encoded, layer)
    first, last = encoded.reads[0].spans[0]
    scores = probability(states)
    text, begin = prompt.text[prompt.read[0] : prompt.read[1]], 0
    tokenizer, rows = detector.lm.tokenizer, []
    for place in range(first, last):
        said = tokenizer.decode(list(encoded.ids[0][first : place + 1]))
        # The end of what is decoded so far; a token that is half a character ends where the next whole one does.
        stop = min(len(text), max(begin, len(said.rstrip("\ufffd"))))
        rows.append({"token": text[begin:stop], "start": begin, "stop": stop, "score": float(scores[place - first])})
        begin = stop
    return pd.DataFrame(rows)


def states_of_tokens(detector: Detector, encoded: Encoded, layer: int) -> np.ndarray:
    """States at the tokens that are read of one prompt: tokens x width, fp32; adapter on where the detector sees it."""
    adapter = detector.needs.adapter
    on = contextlib.nullcontext() if adapter is None else adapter_loaded(detector.lm, adapter)
    spans = encoded.reads[0].spans
    (batch,) = detector.engine.plan(encoded.ids)
    with on, detector.engine.reading_tokens(batch, [layer], spans) as (states, _):
        return states[layer].float().cpu().numpy()
