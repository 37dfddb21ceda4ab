"""What a detector on its model offers to those who read with it (see `Detector`, which is one)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from adapterprobe.detectors.bundle_record import DetectorRecord, Threshold
from adapterprobe.detectors.inputs import InputPrompter
from adapterprobe.detectors.passes import Needs
from adapterprobe.engine import Engine
from adapterprobe.models import LanguageModel
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.types import Prompt


class LoadedDetector(Protocol):
    """A detector that stands on its model. Its parts take it by this, so that they do not know the class that is made of them."""

    @property
    def record(self) -> DetectorRecord: ...
    @property
    def lm(self) -> LanguageModel: ...
    @property
    def engine(self) -> Engine: ...
    @cached_property
    def needs(self) -> Needs: ...
    @cached_property
    def prompter(self) -> InputPrompter: ...
    @property
    def threshold(self) -> Threshold: ...
    def encoded(self, prompts: Sequence[Prompt]) -> Encoded: ...
    def save(self, folder: str | Path) -> Path: ...
