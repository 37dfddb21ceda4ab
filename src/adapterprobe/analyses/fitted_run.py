"""A run whose arms are fitted and scored: the one argument of every analysis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from adapterprobe.activations import HiddenStates
from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.adapters.cached_training import SharedLowerBlocks, TrainedAdapter
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import FeatureSpec, feature_spec
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.engine import Engine
from adapterprobe.evaluate.scores import Labels
from adapterprobe.models import LanguageModel
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.questions import Questions

Findings = dict[str, Any]
"""What an analysis found, by file: a table for a `.parquet`, and for a `.json` a list or an object, which is added to what others have
there."""


@dataclass(frozen=True)
class FittedRun:
    """Everything that analyses look at. What follows from the configuration hangs on it, computed once."""

    config: RunConfig
    lm: LanguageModel
    engine: Engine
    questions: Questions
    encoded: Encoded
    """Prompts of all splits: states, scores and labels are in their order."""
    training_prompts: tuple[Encoded, Encoded]
    """What adapters were trained and stopped on."""
    base: HiddenStates
    """Adapter off."""
    adapters: dict[int, TrainedAdapter]
    """By training seed."""
    adapted: dict[int, HiddenStates]
    """Adapter on, by training seed."""
    trunk: SharedLowerBlocks
    fits: list[ArmFit]
    labels: dict[int, Labels]
    prompt_frame: pd.DataFrame
    """See `evaluate.scores.prompt_frame`."""
    predictions: pd.DataFrame
    """`predictions.parquet`."""

    @cached_property
    def lowest_seed(self) -> int:
        """The training seed whose adapter and probes stand for the others where one is enough."""
        return min(self.config.seeds)

    @property
    def main_probe(self) -> str:
        """The probe that hypotheses are about."""
        return self.config.evaluate.probe

    @cached_property
    def feature_specs(self) -> dict[str, FeatureSpec]:
        """What each probe sees, by its name."""
        n_layers = self.lm.structure.n_layers
        return {name: feature_spec(spec, self.config, n_layers) for name, spec in self.config.probe_by_label.items()}

    def fits_of(self, arm: str | None = None, probe: str | None = None, seed: int | None = None) -> list[ArmFit]:
        """Fits of an arm, a probe, a seed, or all of them."""
        return [
            fit
            for fit in self.fits
            if arm in (None, fit.arm) and probe in (None, fit.probe) and (seed is None or fit.seed == seed)
        ]

    def main_fit(self, arm: str) -> ArmFit:
        """The main probe of an arm, of the lowest seed."""
        return self.fits_of(arm, self.main_probe, self.lowest_seed)[0]

    def column(self, of: Callable[[Any], Any]) -> np.ndarray:
        """Something of every prompt, as an array in their order."""
        return self.encoded.column(of)

    @contextlib.contextmanager
    def adapter_on(self, seed: int) -> Iterator[None]:
        """Within, the adapter of a seed is on, at the speed of the bare model."""
        with adapter_loaded(self.lm, self.adapters[seed].folder):
            yield
