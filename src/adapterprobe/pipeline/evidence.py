"""What is to be said of a run's probes beside their scores: how sure they are, what they look along, what it would take."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from adapterprobe.config import RunConfig
from adapterprobe.engine import Engine
from adapterprobe.evaluate.flagging import flagging_records
from adapterprobe.evaluate.guarantees import guarantee_records
from adapterprobe.hidden import HiddenStates
from adapterprobe.models import LanguageModel
from adapterprobe.models.encode import Encoded
from adapterprobe.pipeline.adapters import TrainedAdapter
from adapterprobe.pipeline.arms import ArmFit, p_positive
from adapterprobe.pipeline.directions import cosines, projections
from adapterprobe.pipeline.learning_curve import learning_curves, nested_judgements
from adapterprobe.pipeline.outputs import write_json, write_parquet
from adapterprobe.pipeline.soft import soft_records
from adapterprobe.pipeline.steering import steering_records
from adapterprobe.pipeline.uncertainty import uncertainty_frame
from adapterprobe.progress import Timings

FILE = "probes.json"


def write_evidence(
    config: RunConfig,
    out: Path,
    lm: LanguageModel,
    engine: Engine,
    encoded: Encoded,
    frame: pd.DataFrame,
    fits: list[ArmFit],
    base: HiddenStates,
    adapted: dict[int, HiddenStates],
    adapters: dict[int, TrainedAdapter],
    timings: Timings,
) -> None:
    """Write `probes.json` (calibration, conformal, soft, flagging, curves, nested, cosines, steering), `uncertainty.parquet` and
    `projections.parquet`.

    Args:
        frame: `predictions.parquet`.
    """
    settings = config.evaluate
    with timings.stage("calibration and guarantees", told=True):
        calibration, conformal = guarantee_records(frame, settings.coverage, settings.false_positive_rate)
        says = {"base+probe": p_positive(base.logprobs), "adapter+probe": p_positive(adapted[min(adapted)].logprobs)}
        soft = soft_records(config, encoded, fits, says)
    with timings.stage("uncertainty", told=True):
        unsure = uncertainty_frame(encoded, fits)
        write_parquet(out, "uncertainty.parquet", unsure)
        flagging = flagging_records(unsure, settings.resamples)
    with timings.stage("learning curves", told=True):
        curves = learning_curves(config, encoded, fits)
        nested = nested_judgements(config, fits, lm.structure.n_layers)
    found: dict = {}
    if settings.directions:
        with timings.stage("directions", told=True):
            found["cosines"] = cosines(config, fits, lm.structure.width)
            write_parquet(out, "projections.parquet", projections(config, encoded, fits))
            found["steering"] = steering_records(config, lm, engine, encoded, fits, adapters)
    content = {"calibration": calibration, "conformal": conformal, "soft": soft, "flagging": flagging}
    write_json(out, FILE, content | {"curves": curves, "nested": nested} | found)
