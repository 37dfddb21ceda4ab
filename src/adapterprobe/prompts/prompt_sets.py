"""What prompts have in common: their wording, and the set within which states may be centred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterprobe.types import NEGATED, Prompt


def wordings(prompts: Sequence[Prompt]) -> np.ndarray:
    """In what words each prompt asks: template, format and system prompt. Of statements and replies the question stands behind what is read,
    and is no part of it."""
    return np.array(
        [" | ".join(("read" if p.read else p.template, p.format, p.system_prompt or "none")) for p in prompts]
    )


def set_names(prompts: Sequence[Prompt]) -> np.ndarray:
    """Data set, polarity and prompt type (what it pushes to, and its wording) of each prompt: all but the question itself, and nothing
    that a label would tell."""
    polarity = ("negated" if p.example.form in NEGATED else "affirmed" for p in prompts)
    parts = zip(prompts, polarity, wordings(prompts), strict=True)
    return np.array([" | ".join((p.example.dataset, sign, p.condition, wording)) for p, sign, wording in parts])
