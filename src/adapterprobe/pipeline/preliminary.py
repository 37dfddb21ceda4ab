"""A first verdict after the first training seed, long before a run is whole."""

from __future__ import annotations

from pathlib import Path

from adapterprobe.activations import HiddenStates
from adapterprobe.adapters.cached_training import TrainedAdapter
from adapterprobe.config import RunConfig
from adapterprobe.detectors.baselines import BaselineReadings
from adapterprobe.detectors.fit import all_scores, fit_arms
from adapterprobe.detectors.judged_prompts import judged_prompts
from adapterprobe.detectors.token_features import token_layers, token_states
from adapterprobe.engine import Engine
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.verdict import Hypothesis
from adapterprobe.knowledge import Knowledge
from adapterprobe.models import LanguageModel
from adapterprobe.models.load import describe
from adapterprobe.pipeline.run_summary import replies_judged
from adapterprobe.prompts.encoded import Encoded

RESAMPLES = 2000
"""Of groups: what is told here is told again with as many as the configuration has."""


def wants_preliminary(config: RunConfig) -> bool:
    """Whether a first verdict is worth its cost: there are more seeds to train, or a control to train."""
    return config.evaluate.preliminary and (len(config.seeds) > 1 or config.evaluate.adapter_controls)


def preliminary_report(
    whole: RunConfig,
    hypotheses: list[Hypothesis],
    lm: LanguageModel,
    engine: Engine,
    encoded: Encoded,
    base: HiddenStates,
    adapters: dict[int, TrainedAdapter],
    adapted: dict[int, HiddenStates],
    knowledge: Knowledge,
    baselines: BaselineReadings,
    out: Path,
) -> str:
    """Write `report.html` and `report.md` of the seeds that there are, for the main probe alone. Searches are kept, so that the whole run
    does not repeat them.

    Args:
        whole: the run's configuration. adapters, adapted: by training seed.

    Returns:
        Lines for a terminal.
    """
    from adapterprobe.report.preliminary import write_preliminary

    main = whole.probe_by_label[whole.evaluate.probe]
    config = whole.model_copy(update={"seeds": list(adapters), "probes": [main]})
    layers = token_layers(config, lm.structure.n_layers)
    tokens = token_states(config, lm, engine, encoded, adapters, layers) if layers else None
    fits, _ = fit_arms(config, encoded, base, adapted, tokens, baselines.arms)
    shown, labels = judged_prompts(config, encoded, base, adapted, knowledge, lm.name)
    own = [detector for detector in baselines.own if detector.seed in adapters]
    frame = all_scores(config, encoded, base, adapters, adapted, fits, shown, labels, own)
    settings = config.evaluate
    results, verdicts = evaluate(
        frame,
        hypotheses,
        settings.probe,
        min(RESAMPLES, settings.resamples),
        settings.margin,
        config.data.min_groups,
    )
    replies = replies_judged(encoded, lm.name) if config.read.what == "reply" else []
    about = {"model": describe(lm), "replies": replies}
    trainings = max(adapter.seconds for adapter in adapters.values()) * (len(whole.seeds) - len(adapters))
    return write_preliminary(config, frame, results, verdicts, out, to_come(whole, list(adapters)), about, trainings)


def to_come(config: RunConfig, done: list[int]) -> list[str]:
    """What the whole run adds to the seeds that are done."""
    left = [str(seed) for seed in config.seeds if seed not in done]
    others = [spec.label for spec in config.probe_specs if spec.label != config.evaluate.probe]
    found = [f"training seeds {', '.join(left)}"] if left else []
    found += [f"probes {', '.join(others)}"] if others else []
    found += ["adapters that must not work"] if config.evaluate.adapter_controls else []
    found += [f"asked otherwise ({', '.join(config.evaluate.shifts)})"] if config.evaluate.shifts else []
    return [*found, "controls, calibration, thresholds and the other tables"]
