"""Golden rows: inputs whose tokens, states and scores are kept in a bundle, so that it proves itself on the model where it lands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterprobe.cache import digest
from adapterprobe.detectors.bundle_record import GOLDEN, REMEDY, DetectorRecord
from adapterprobe.detectors.inputs import stored_prompt
from adapterprobe.detectors.passes import Needs, StateReader, encoded_for
from adapterprobe.detectors.sketches import SKETCH, checksum, distance, projected
from adapterprobe.errors import CacheError, ModelError
from adapterprobe.models import LanguageModel
from adapterprobe.models.hardware import dtype_name
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.formats import is_chat
from adapterprobe.small_files import read_json
from adapterprobe.types import Prompt

ROWS = 20
TYPICAL, LARGEST = 0.05, 0.2
"""Shifts of golden rows' scores that are borne, the median and the largest: another number format, attention or version. Between bf16 and
fp32 a steep probe shifts single rows by 0.05 (median 0.01), and 8-bit weights by 0.5 (0.09)."""
EQUAL = 1e-4
SAME_STATES = 0.02
"""How far states of one model lie apart on two machines, at most, in their lengths."""
ELSEWHERE = 0.5
"""States that lie further apart are states of something else: 4-bit weights move them by 0.16, another pooling by 0.75."""
NEIGHBOUR = 0.5
"""A neighbouring layer is told by this share of the distance that the layer itself has."""


@dataclass(frozen=True)
class GoldenReport:
    """What replaying the golden rows has shown.

    `level`: `equal` (no score shifts by more than 1e-4), or `tolerated`; `largest` and `median`: how far scores shift; `states`: how far
    states lie apart, in their lengths (median); `checksums`: rows whose states are the same to bf16's precision; `decisions`: rows that are
    on the other side of the threshold here.
    """

    level: str
    largest: float
    median: float
    states: float
    checksums: int
    rows: int
    decisions: int = 0
    differs: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For a terminal."""
        why = f" ({'; '.join(self.differs)})" if self.differs else ""
        return (
            f"replayed {self.rows} golden rows: scores shift by up to {self.largest:.2g} (median {self.median:.2g}), which is borne; "
            f"{self.decisions} {'is' if self.decisions == 1 else 'are'} on the other side of the threshold{why}"
        )


def template_hash(lm: LanguageModel) -> str | None:
    """Of the tokenizer's chat template; None where it has none."""
    template = getattr(lm.tokenizer, "chat_template", None)
    return digest(template) if template else None


def golden_layer(record: DetectorRecord, needs: Needs) -> int:
    """The layer whose states are compared: the probe's or the head's own; of a model's own answer, the middle one."""
    if needs.head is not None:
        return needs.head.layer
    return record.seen.layer if record.seen is not None else max(1, record.model.blocks // 2)


def make_golden(record: DetectorRecord, reader: StateReader, needs: Needs, prompts: Sequence[Prompt]) -> dict:
    """Content of `golden.json`: texts as sent, tokens, sketches of states, and scores on this model."""
    encoded = encoded_for(record, reader.lm, prompts)
    layer = golden_layer(record, needs)
    found, scores = _read(reader, needs, encoded, [layer])
    states = found[layer]
    sketches = projected(states, SKETCH)
    return {
        "layer": layer,
        "rows": [
            {
                "text": prompt.text,
                "span": prompt.read,
                "positive": prompt.positive,
                "negative": prompt.negative,
                "ids": list(ids),
                "state": [float(f"{value:.6g}") for value in sketch],
                "checksum": checksum(state[None]),
                "score": float(score),
            }
            for prompt, ids, sketch, state, score in zip(
                encoded.prompts, encoded.ids, sketches, states, scores, strict=True
            )
        ],
    }


def check_model(record: DetectorRecord, reader: StateReader) -> None:
    """Whether a model can be the one that a detector is for, before anything is run.

    Raises:
        ModelError: it has another shape, other weights, or another chat template.
    """
    wanted, lm = record.model, reader.lm
    shape = (lm.structure.n_layers, lm.structure.width)
    if shape != (wanted.blocks, wanted.width):
        raise ModelError(
            f"{record.name} is for {wanted.name} ({wanted.blocks} blocks of width {wanted.width}); {lm.name} has {shape[0]} of width {shape[1]}: "
            f"load it on {wanted.hub_id or wanted.name}"
        )
    if reader.has_weights and lm.vectors_hash != wanted.vectors:
        raise ModelError(
            f"{record.name} is for {wanted.name}, and {lm.name} has the same shape and other weights (recorded {wanted.vectors}, here "
            f"{lm.vectors_hash}): another checkpoint; load it on {wanted.hub_id or wanted.name}"
            + (f", revision {wanted.revision}" if wanted.revision else "")
        )
    if is_chat(record.prompting.format) and template_hash(lm) != wanted.chat_template:
        raise ModelError(
            f"{record.name} was judged with another chat template than {lm.name} has here; take the tokenizer of {wanted.hub_id or wanted.name} "
            "as it was"
        )


def replay(folder: Path, record: DetectorRecord, reader: StateReader, needs: Needs) -> GoldenReport:
    """Read the golden rows on this model, and compare.

    Raises:
        CacheError: there are none.
        ModelError: tokens, states or scores differ beyond what is borne (says which).
    """
    content = read_json(folder / GOLDEN, "the golden rows", error=CacheError, remedy=REMEDY)
    try:
        rows, layer = content["rows"], int(content["layer"])
        prompts = [
            stored_prompt(
                f"golden {n}", record.prompting, record.read, row["text"], tuple(row["span"]) if row["span"] else None, row["text"],
                row["positive"], row["negative"],
            )
            for n, row in enumerate(rows)
        ]  # fmt: skip
        kept = np.array([row["state"] for row in rows], np.float32)
        wanted = np.array([row["score"] for row in rows], float)
        ids = [tuple(map(int, row["ids"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(f"{folder / GOLDEN} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    lm = reader.lm
    encoded = encoded_for(record, lm, prompts)
    _check_tokens(record, lm, encoded, ids)
    near = [layer + step for step in (-1, 0, 1) if 0 <= layer + step <= lm.structure.n_layers]
    states, scores = _read(reader, needs, encoded, near)
    apart = {index: float(np.median(distance(kept, projected(found, SKETCH)))) for index, found in states.items()}
    own = apart[layer]
    if own > SAME_STATES and reader.has_weights and _other_weights(record, lm):
        raise ModelError(
            f"{record.name} is for {record.model.name}, and {lm.name} has other weights in the same number format: its states lie {own:.2g} of "
            f"their length from what they were; load it on {record.model.hub_id or record.model.name} as it was"
        )
    closer = min(apart, key=lambda index: apart[index])
    if closer != layer and apart[closer] < NEIGHBOUR * own:
        raise ModelError(
            f"{record.name} reads state {layer}, and what it was made with is state {closer} of {lm.name} here: a layer off by one; {REMEDY}"
        )
    if own > ELSEWHERE:
        raise ModelError(
            f"{record.name} reads other states of {lm.name} than it was made with: they lie {own:.2g} of their length from what they were, further "
            f"than any number format moves them; another pooling than '{record.read.pooling}', or other tokens; {REMEDY}"
        )
    shifts = np.abs(scores - wanted)
    same = sum(checksum(state[None]) == row["checksum"] for state, row in zip(states[layer], rows, strict=True))
    differs = _differs(record, lm)
    largest, median = float(shifts.max()), float(np.median(shifts))
    bound = record.threshold.value
    decisions = 0 if bound is None else int(((scores > bound) != (wanted > bound)).sum())
    if largest > LARGEST or median > TYPICAL:
        raise ModelError(
            f"{record.name} does not score on {lm.name} as it did: the score of a golden row shifts by {largest:.3g} (median {median:.3g}; at "
            f"most {LARGEST:g} and {TYPICAL:g} are borne), {decisions} of {len(rows)} are on the other side of the threshold, and states lie "
            f"{own:.2g} of their length from what they were{' (' + '; '.join(differs) + ')' if differs else ''}; load the model as it was "
            f"({record.model.dtype}), or load it with verify=False (--no-verify) and calibrate it anew"
        )
    level = "equal" if largest <= EQUAL else "tolerated"
    return GoldenReport(level, largest, median, own, same, len(rows), decisions, tuple(differs))


def _other_weights(record: DetectorRecord, lm: LanguageModel) -> bool:
    """Whether weights or tokenizer are surely not those that the detector was made with."""
    same_format = dtype_name(lm.dtype) == record.model.dtype and not getattr(lm.model, "is_quantized", False)
    return same_format and lm.fingerprint != record.model.fingerprint


def _differs(record: DetectorRecord, lm: LanguageModel) -> list[str]:
    here = dtype_name(lm.dtype)
    found = [f"{record.model.dtype} there, {here} here"] if here != record.model.dtype else []
    if getattr(lm.model, "is_quantized", False):
        found.append("quantised here")
    import transformers

    there = record.made_with.get("transformers")
    if there and there != transformers.__version__:
        found.append(f"transformers {there} there, {transformers.__version__} here")
    return found


def _check_tokens(
    record: DetectorRecord, lm: LanguageModel, encoded: Encoded, wanted: Sequence[tuple[int, ...]]
) -> None:
    for row, (mine, theirs) in enumerate(zip(encoded.ids, wanted, strict=True)):
        if mine == theirs:
            continue
        bos = getattr(lm.tokenizer, "bos_token_id", None)
        if theirs[1:] == mine:
            why = f"the first token ({theirs[0]}) is missing: a tokenizer that adds no token for the beginning (BOS)"
        elif mine[1:] == theirs:
            why = f"there is one token more in front ({mine[0]}{', BOS' if mine[0] == bos else ''})"
        else:
            place = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
            )
            why = f"they differ from token {place} on"
        raise ModelError(
            f"the tokenizer of {lm.name} reads golden row {row} of {record.name} otherwise ({len(mine)} tokens, expected {len(theirs)}): {why}; take "
            f"the tokenizer of {record.model.hub_id or record.model.name}"
        )


def _read(
    reader: StateReader, needs: Needs, encoded: Encoded, layers: Sequence[int]
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """(states at layers, with the adapter on where the detector sees it; scores)."""
    if needs.adapter is None:
        passes = reader.passes(encoded, [needs], also=layers)
        seen = passes.off
    else:
        passes = reader.passes(encoded, [needs], also_on=layers)
        seen = passes.on[needs.adapter]
    assert seen is not None
    return {layer: seen.layer(layer) for layer in layers}, needs.scores(encoded, passes)
