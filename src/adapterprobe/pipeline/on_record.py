"""What a run has on record when its arms have been scored: everything that later stages look at."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from adapterprobe.config import RunConfig
from adapterprobe.engine import Engine
from adapterprobe.evaluate.scores import Labels
from adapterprobe.hidden import HiddenStates
from adapterprobe.models import LanguageModel
from adapterprobe.models.encode import Encoded
from adapterprobe.pipeline.adapters import SharedTrunk, TrainedAdapter
from adapterprobe.pipeline.arms import ArmFit
from adapterprobe.pipeline.prepare import Questions


@dataclass(frozen=True)
class OnRecord:
    """A run after its arms have been scored."""

    config: RunConfig
    lm: LanguageModel
    engine: Engine
    questions: Questions
    encoded: Encoded
    learned: tuple[Encoded, Encoded]
    """What adapters were trained and stopped on."""
    base: HiddenStates
    adapters: dict[int, TrainedAdapter]
    adapted: dict[int, HiddenStates]
    trunk: SharedTrunk
    fits: list[ArmFit]
    labels: dict[int, Labels]
    shown: pd.DataFrame
    """See `prompt_frame`."""
    frame: pd.DataFrame
    """`predictions.parquet`."""
