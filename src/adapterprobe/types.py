"""The records that pass between stages, and the vocabulary of their fields (docs/concepts.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

REPORTED_SPLITS = ("calibrate", "test", "ood")
"""Splits that predictions are written for; adapters, probes and layers never see them."""

AXES = ("truth", "instructed", "behaviour", "lie")
FORMS = ("question", "negated", "statement", "recall")


@dataclass(frozen=True, slots=True)
class Example:
    """One question with two answer choices.

    `truth` says whether the *positive* choice is the true one. `group` is the subject entity across
    relations; everything that is split, resampled or filtered goes by it, never by row.
    """

    example_id: str
    dataset: str
    group: str
    form: str
    positive: str
    negative: str
    truth: bool
    texts: Mapping[str, str] = field(hash=False)
    """What a template can place: `question`, `statement`, `negation`, `recall`, `subject`, `object`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """An example rendered under one condition, template, format and demonstration set."""

    prompt_id: str
    example: Example
    split: str
    condition: str
    template: str
    format: str
    system_prompt: str | None
    demo_set: str
    demo_groups: tuple[str, ...]
    shots: int
    text: str
    """Exactly what is tokenised (special tokens included where the format writes them)."""
    positive: str
    negative: str

    @property
    def instructed(self) -> bool | None:
        """Whether the positive choice is what the prompt pushes to; None where it pushes to nothing."""
        if self.condition == "neutral":
            return None
        return self.example.truth if self.condition == "truth" else not self.example.truth


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence limits (95 % unless said otherwise)."""

    estimate: float
    low: float
    high: float
