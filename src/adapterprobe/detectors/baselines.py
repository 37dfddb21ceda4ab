"""What a detector must beat that sees no state of the model that is read: another model's reading, unrelated questions, words alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapterprobe.activations import HiddenStates, record, record_tokens
from adapterprobe.config import RunConfig
from adapterprobe.detectors.features import FeatureSpec, feature_spec
from adapterprobe.detectors.fit import BaselineArm, all_rows, own_detector
from adapterprobe.detectors.text_judge import text_judge
from adapterprobe.detectors.token_features import token_layers
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.evaluate.schema import BASELINES, FOLLOWUPS, STRANGER, STRANGER_PROBE, TFIDF
from adapterprobe.evaluate.scores import Detector
from adapterprobe.evaluate.verdict import Hypothesis
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.load import describe
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.questions import Questions
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.prompts.unrelated_questions import questions_behind, unrelated_questions


@dataclass(frozen=True)
class BaselineReadings:
    """The baselines of a run: arms that probes are fitted in, detectors by themselves, and what is to be told of them."""

    arms: list[BaselineArm] = field(default_factory=list)
    own: list[Detector] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FollowupAnswers:
    """What a model answers to unrelated questions, one number a question, as probes see it: `layer` is there once."""

    answers: HiddenStates
    questions: int

    @property
    def key(self) -> str:
        return f"{FOLLOWUPS}:{self.answers.key}"

    def layer(self, _: int) -> np.ndarray:
        """Log-odds of Yes against No: rows x questions, fp32."""
        logprobs = self.answers.logprobs.reshape(self.questions, -1, 2)
        return np.ascontiguousarray((logprobs[:, :, 0] - logprobs[:, :, 1]).T)


def check_baselines(config: RunConfig, hypotheses: Sequence[Hypothesis]) -> None:
    """What can be known before a model is loaded.

    Raises:
        ConfigError: a hypothesis about a baseline that the run does not have, or follow-ups where nothing stands in front of them.
    """
    there = _arms(config)
    for hypothesis in hypotheses:
        for arm in (hypothesis.better, hypothesis.worse):
            if arm in BASELINES and arm not in there:
                key = "evaluate.stranger=MODEL" if arm in (STRANGER, STRANGER_PROBE) else f"evaluate.baselines=[{arm}]"
                raise ConfigError(f"hypothesis '{hypothesis.text}': the arm {arm} is there with {key}")
    if FOLLOWUPS in there and config.read.what == "answer":
        raise ConfigError(
            "evaluate.baselines=[followups] asks unrelated questions behind a reply or a statement (read.what=reply or statement); here the "
            "answer itself is read"
        )


def _arms(config: RunConfig) -> Collection[str]:
    stranger = [STRANGER, STRANGER_PROBE] if config.evaluate.stranger else []
    return [*stranger, *config.evaluate.baselines]


def read_baselines(
    config: RunConfig, questions: Questions, lm: LanguageModel, engine: Engine, encoded: Encoded
) -> BaselineReadings:
    """Let the run's prompts be read as its baselines read them; the stranger is loaded, and let go of, here.

    Raises:
        ConfigError: layers that the stranger does not have.
        DataError: prompts that do not fit its context, or with an unrelated question no longer fit the model's.
        ModelError: it cannot be loaded, or is the model itself.
    """
    there = _arms(config)
    found = BaselineReadings()
    if STRANGER in there:
        _stranger(config, questions, lm, encoded, found)
    if FOLLOWUPS in there:
        found.arms.append(_followups(config, lm, engine, encoded))
        found.about[FOLLOWUPS] = {question.name: question.ask for question in unrelated_questions()}
    if TFIDF in there:
        judged = text_judge(encoded, all_rows(config, encoded))
        found.about[TFIDF] = {"strength": judged.strength, "words": judged.words, "select_auroc": judged.select_auroc}
        found.own.extend(Detector(TFIDF, None, None, seed, config.axes[0], judged.scores) for seed in config.seeds)
    return found


def _stranger(
    config: RunConfig, questions: Questions, lm: LanguageModel, encoded: Encoded, found: BaselineReadings
) -> None:
    name = config.evaluate.stranger
    settings = config.model.arguments() | {"name": name, "revision": None}
    if isinstance(config.model.device, dict):
        # A map names the parts of one model.
        settings["device"] = "balanced"
    try:
        other = load_model(**settings)
    except ModelError as error:
        raise ModelError(f"evaluate.stranger: {error}") from error
    if other.fingerprint == lm.fingerprint:
        raise ModelError(
            f"evaluate.stranger={name} is the model that is read itself (the same weights); name another one, such as the model that "
            "this one was made from"
        )
    try:
        prompts, _ = prepare_prompts(config, questions, other.tokenizer, other.context_length)
        read = encode(other.tokenizer, prompts, other.context_length, other.vocabulary)
    except DataError as error:
        raise DataError(f"evaluate.stranger={name} cannot read these prompts: {error}") from error
    read = with_reads(read, config.read, other.tokenizer, withheld=False)
    if [p.example.example_id for p in read.prompts] != [p.example.example_id for p in encoded.prompts]:
        raise ModelError(f"evaluate.stranger={name} would read other rows; please report this with the configuration")
    n_layers = other.structure.n_layers
    specs = {}
    for spec in config.probe_specs:
        try:
            specs[spec.label] = feature_spec(spec, config, n_layers)
        except ConfigError as error:
            raise ConfigError(f"evaluate.stranger={name}: {error}") from error
    engine = Engine(other.model, other.structure)
    what = f"read by {other.name}"
    states = record(engine, read, other.fingerprint, list(range(n_layers + 1)), what)
    layers = token_layers(config, n_layers)
    tokens = record_tokens(engine, read, other.fingerprint, layers, config.select.tokens, what) if layers else None
    found.arms.append(BaselineArm(STRANGER_PROBE, states, specs, {}, tokens))
    found.own.extend(own_detector(STRANGER, seed, read, states, None) for seed in config.seeds)
    found.about[STRANGER] = describe(other)


def _followups(config: RunConfig, lm: LanguageModel, engine: Engine, encoded: Encoded) -> BaselineArm:
    kinds = {spec.label: feature_spec(spec, config, lm.structure.n_layers).kind for spec in config.probe_specs}
    why = "it reads tokens or several layers, and answers to questions are one number each"
    refused = {label: why for label, kind in kinds.items() if kind != "layer"}
    if config.evaluate.probe in refused:
        raise ConfigError(
            f"evaluate.baselines=[followups]: evaluate.probe '{config.evaluate.probe}' cannot be fitted there ({why}); name another one, such as "
            "logistic"
        )
    asked = unrelated_questions()
    prompts = questions_behind(encoded.prompts, asked, config.read, lm.tokenizer, lm.context_length)
    behind = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    answers = record(engine, behind, lm.fingerprint, [], "unrelated questions")
    specs = {label: FeatureSpec((0,)) for label in kinds if label not in refused}
    return BaselineArm(FOLLOWUPS, FollowupAnswers(answers, len(asked)), specs, refused)
