"""The judged prompts of a run: their labels on all axes, and what was sent."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adapterprobe.activations import HiddenStates
from adapterprobe.config import RunConfig
from adapterprobe.detectors.fit import p_positive
from adapterprobe.evaluate.scores import Labels, prompt_frame
from adapterprobe.knowledge import Knowledge
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.types import REPORTED_SPLITS


def judged_prompts(
    config: RunConfig,
    encoded: Encoded,
    base: HiddenStates,
    adapted: dict[int, HiddenStates],
    belief: Knowledge,
    model: str = "",
) -> tuple[pd.DataFrame, dict[int, Labels]]:
    """What is known of every prompt (see `prompt_frame`), and by seed its labels: the model under test may be one with an
    adapter.

    Args:
        model: its name.
    """
    prompts = list(encoded.prompts)
    known, recalled = belief.of(prompts), belief.recalled_of(prompts)
    held = known if config.evaluate.belief == "known" else recalled.fillna(False).to_numpy(bool)
    under_test = {seed: adapted[seed] if config.under_test == "adapter" else base for seed in config.seeds}
    labels = {seed: Labels.of(prompts, p_positive(m.logprobs) > 0.5, held) for seed, m in under_test.items()}
    return prompt_frame(prompts, known, recalled, config.data.data_seed, config.read, model), labels


def sent_prompts(encoded: Encoded, base: HiddenStates, adapted: dict[int, HiddenStates]) -> pd.DataFrame:
    """Content of `prompts.parquet`: the judged prompts as sent, and what the model answered with the adapter off and (lowest
    seed) on: the probability of the positive choice among both, and of both among all tokens."""
    rows = [row for row, prompt in enumerate(encoded.prompts) if prompt.split in REPORTED_SPLITS]
    prompts = [encoded.prompts[row] for row in rows]
    found = {
        "prompt_id": [p.prompt_id for p in prompts],
        "dataset": [p.example.dataset for p in prompts],
        "split": [p.split for p in prompts],
        "group": [p.example.group for p in prompts],
        "condition": [p.condition for p in prompts],
        "template": [p.template for p in prompts],
        "format": [p.format for p in prompts],
        "truth": [p.example.truth for p in prompts],
        "positive": [p.positive for p in prompts],
        "negative": [p.negative for p in prompts],
        "turn": [p.turn for p in prompts],
        "text": [p.text for p in prompts],
        "read_start": pd.array([p.read and p.read[0] for p in prompts], dtype="Int32"),
        "read_stop": pd.array([p.read and p.read[1] for p in prompts], dtype="Int32"),
    }
    for name, states in (("off", base), ("on", adapted[min(adapted)])):
        logprobs = states.logprobs[rows]
        found[f"p_positive_{name}"] = p_positive(logprobs)
        found[f"coverage_{name}"] = np.exp(logprobs.astype(np.float64)).sum(1)
    return pd.DataFrame(found)
