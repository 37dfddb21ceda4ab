"""Probes held against single tokens, and a detector against every token of replies or statements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.detectors.loaded import LoadedDetector
from adapterprobe.detectors.notebook import TokenTable
from adapterprobe.engine import Engine
from adapterprobe.errors import DataError
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import Span
from adapterprobe.types import Prompt

Probability = Callable[[np.ndarray], np.ndarray]
"""Of label 1, from states at tokens: tokens x width."""


def per_token(probe: Any, kind: str) -> Probability | None:
    """How a probe scores single tokens: one over tokens adds up what each says, one of single states takes each for itself; None for
    others.

    Args:
        kind: what it sees (see `FeatureSpec`).
    """
    if hasattr(probe, "token_log_odds"):
        return lambda states: expit(probe.token_log_odds(states))
    if kind != "layer" or getattr(probe, "needs_polarity", False):
        return None
    return lambda states: probe.predict_proba(states)[:, 1]


@torch.no_grad()
def states_by_row(
    engine: Engine, encoded: Encoded, layers: Sequence[int], spans: Sequence[Span]
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    """Rows as passes give them, each with its states at the tokens of its span, by layer: tokens x width, fp32."""
    lengths = [stop - start for start, stop in spans]
    for batch in engine.plan(encoded.ids):
        with engine.reading_tokens(batch, layers, spans) as (states, _):
            parts = {
                layer: found.float().cpu().split([lengths[row] for row in batch.rows])
                for layer, found in states.items()
            }
        for place, row in enumerate(batch.rows):
            yield row, {layer: part[place].numpy() for layer, part in parts.items()}


def token_probability(detector: LoadedDetector) -> tuple[int, Probability]:
    """(layer, probability of label 1 from the states of single tokens).

    Raises:
        DataError: the detector has none.
    """
    needs = detector.needs
    if needs.head is not None:
        return needs.head.layer, needs.head.probability
    seen, arm = detector.record.seen, detector.record.arm.partition("@")[0]
    if needs.probe is not None and seen is not None and arm in ("base+probe", "adapter+probe"):
        probability = per_token(needs.probe, seen.kind)
        if probability is not None:
            return seen.layer, probability
    raise DataError(
        f"{detector.record.name} has no score for a single token: pack a detector of base+probe, adapter+probe or adapter+head whose probe "
        "reads one state at one layer, such as logistic"
    )


def token_scores(detector: LoadedDetector, prompts: Sequence[Prompt]) -> list[TokenTable]:
    """A table for each prompt (see `Detector.tokens`).

    Raises:
        DataError: the detector has no score for a single token, or reads the answer.
    """
    if detector.record.read.what == "answer":
        raise DataError(f"{detector.record.name} reads the answer that is about to be given, which has no tokens yet")
    layer, probability = token_probability(detector)
    encoded = detector.encoded(prompts)
    spans = encoded.reads[0].spans
    adapter = detector.needs.adapter
    tables: dict[int, TokenTable] = {}
    with contextlib.nullcontext() if adapter is None else adapter_loaded(detector.lm, adapter):
        for row, states in states_by_row(detector.engine, encoded, [layer], spans):
            ids = encoded.ids[row][slice(*spans[row])]
            tables[row] = _table(detector.lm.tokenizer, encoded.prompts[row], ids, probability(states[layer]))
    return [tables[row] for row in range(len(tables))]


def _table(tokenizer, prompt: Prompt, ids: Sequence[int], scores: np.ndarray) -> TokenTable:
    assert prompt.read is not None
    text, begin, rows = prompt.text[slice(*prompt.read)], 0, []
    for count, score in enumerate(scores.tolist(), 1):
        said = tokenizer.decode(list(ids[:count]))
        # The end of what is decoded so far; a token that is half a character ends where the next whole one does.
        stop = min(len(text), max(begin, len(said.rstrip("\ufffd"))))
        rows.append({"token": text[begin:stop], "start": begin, "stop": stop, "score": score})
        begin = stop
    return TokenTable(rows)
