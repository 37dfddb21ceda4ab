"""What a run's probe says of prompts that it was not fitted on: centred as its configuration has it, and told their polarity if it needs to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from adapterprobe.config import ProbeConfig
from adapterprobe.probes import Probe
from adapterprobe.probes.centring import scores_by_set
from adapterprobe.prompts.contrast_pairs import polarities
from adapterprobe.prompts.prompt_sets import set_names
from adapterprobe.types import Prompt


def probabilities(spec: ProbeConfig, probe: Probe, X: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
    """Probabilities of label 1, one per prompt.

    Args:
        X: what the probe sees of each prompt. With `centre=own` and `few`, prompts of one data set, polarity and prompt type are centred
            by one another.
    """
    if probe.needs_polarity:
        probe = probe.told(polarities(prompts))
    if spec.centre is None:
        return probe.predict_proba(X)[:, 1]
    groups = np.array([prompt.example.group for prompt in prompts])
    return expit(scores_by_set(probe, X, set_names(prompts), spec.centre, groups=groups))
