"""The same questions put otherwise: what holds of a detector when the way of asking changes, and nothing is fitted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from adapterprobe.activations import HiddenStates, TokenStates, record, record_tokens
from adapterprobe.adapters.detect_head import head_layer
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.data.splits import shuffled
from adapterprobe.detectors.features import ActivationPair, FeatureSpec
from adapterprobe.detectors.fit import ArmFit, head_detectors, own_detector
from adapterprobe.errors import AdapterProbeError, ConfigError
from adapterprobe.evaluate.schema import HEAD
from adapterprobe.evaluate.scores import Detector, Labels, predictions, prompt_frame
from adapterprobe.evaluate.shifts import shift_records
from adapterprobe.models import LanguageModel
from adapterprobe.progress import say
from adapterprobe.prompts import templates_for
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.formats import CHAT, is_chat
from adapterprobe.prompts.questions import Questions, prepare_prompts
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.types import INSTRUCTING, Example

MOST_GROUPS = 40
"""Groups of test that are asked again in each way."""
INFORMAL = "hey, quick one before i run... {} thx!!"


def _seen(config: RunConfig, questions: Questions) -> RunConfig:
    names = {
        template.name: None
        for name in questions.trained
        for template in templates_for(questions.datasets[name], config.data.form, config.elicit.templates, role="train")
    }
    return _asked(config, templates=list(names))


def _negated(config: RunConfig, questions: Questions) -> RunConfig:
    if config.data.form not in ("question", "negated"):
        raise ConfigError(f"the form '{config.data.form}' has no negated twin")
    form = "negated" if config.data.form == "question" else "question"
    asked = _asked(config, templates=None)
    return asked.model_copy(update={"data": config.data.model_copy(update={"form": form})})


def _format(config: RunConfig, questions: Questions) -> RunConfig:
    return _asked(config, format="alpaca" if config.elicit.format != "alpaca" else "plain")


def _chat(config: RunConfig, questions: Questions) -> RunConfig:
    if is_chat(config.elicit.format):
        raise ConfigError("it is the format of this run")
    return _asked(config, format=CHAT)


def _informal(config: RunConfig, questions: Questions) -> RunConfig:
    patterns = {
        INFORMAL.format(template.pattern[:1].lower() + template.pattern[1:]): None
        for name in questions.trained
        for template in templates_for(questions.datasets[name], config.data.form, config.elicit.templates, role="judge")
    }
    return _asked(config, templates=list(patterns))


def _without_system(config: RunConfig, questions: Questions) -> RunConfig:
    if config.read.what != "reply":
        raise ConfigError("it is for transcripts that are read at their replies")
    if not any(e.conversation and e.conversation.instructions for e in questions.examples["test"]):
        raise ConfigError("there are no system prompts")
    return config


REWORDINGS: dict[str, Callable[[RunConfig, Questions], RunConfig]] = {
    "wordings of training": _seen,
    "negated": _negated,
    "another format": _format,
    "chat format": _chat,
    "informal": _informal,
    "no system prompt": _without_system,
}
"""By name, the configuration that asks the same questions in that way."""


def _asked(config: RunConfig, **changes) -> RunConfig:
    return config.model_copy(update={"elicit": config.elicit.model_copy(update=changes)})


@dataclass(frozen=True)
class Reworded:
    """Prompts of one way of asking."""

    name: str
    encoded: Encoded


def reworded_prompts(config: RunConfig, questions: Questions, lm: LanguageModel) -> tuple[list[Reworded], list[dict]]:
    """The prompts of every way that the data and the tokenizer allow, and the reasons why others are left out."""
    test = {example.group for example in questions.examples["test"]}
    kept = set(shuffled(sorted(test), [config.data.data_seed, 6])[:MOST_GROUPS])
    found, left_out = [], []
    for name in config.evaluate.shifts:
        try:
            changed = REWORDINGS[name](config, questions)
            asked = _some(questions, changed, kept)
            if name == "no system prompt":
                asked = replace(asked, examples={"test": [_unprompted(e) for e in asked.examples["test"]]})
            prompts, _ = prepare_prompts(changed, asked, lm.tokenizer, lm.context_length)
            encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
            found.append(Reworded(name, with_reads(encoded, changed.read, lm.tokenizer)))
        except AdapterProbeError as error:
            left_out.append({"shift": name, "reason": str(error)})
    return found, left_out


def _unprompted(example: Example) -> Example:
    """The same reply after the same turns, the system's text taken away."""
    talk = example.conversation
    if talk is None:
        return example
    turns = tuple(message for message in talk.context if message.role not in INSTRUCTING)
    return replace(example, conversation=replace(talk, context=turns))


def _some(questions: Questions, config: RunConfig, groups: set[str]) -> Questions:
    """Questions of some groups of test, and the demonstrations, in another form."""

    def again(examples, dataset):
        mine = list(dict.fromkeys(e.group for e in examples))
        data = config.data
        return questions.datasets[dataset].examples(mine, config.form, data.data_seed, data.wrong)

    test = [
        example
        for name in questions.trained
        for example in again([e for e in questions.examples["test"] if e.dataset == name and e.group in groups], name)
    ]
    pools = {key: again(examples, key[0]) for key, examples in questions.pools.items()}
    return replace(questions, examples={"test": test}, pools=pools)


def rewordings(run: FittedRun) -> Findings:
    """Every arm asked otherwise (see `score_rewordings`); `shifts.parquet` has the scores."""
    if not run.config.evaluate.shifts:
        return {"challenge.json": {"shifts": [], "not_asked": []}}
    records, left_out, scores = score_rewordings(run)
    return {"challenge.json": {"shifts": records, "not_asked": left_out}, "shifts.parquet": scores}


def score_rewordings(run: FittedRun) -> tuple[list[dict], list[dict], pd.DataFrame]:
    """Every arm, as it was fitted, on questions of test asked in other ways, for the lowest seed. Thresholds are carried over.

    Returns:
        Records, what was left out, and the scores: `predictions.parquet` with a column `shift`.
    """
    config, lm, seed = run.config, run.lm, run.lowest_seed
    ways, left_out = reworded_prompts(config, run.questions, lm)
    for entry in left_out:
        say(f"not asked in the way '{entry['shift']}': {entry['reason']}")
    fits = run.fits_of(probe=run.main_probe, seed=seed)
    weights = digest(lm.fingerprint, run.adapters[seed].key)
    off = {way.name: _recorded(run, way, lm.fingerprint, fits, "off") for way in ways}
    with run.adapter_on(seed):
        on = {way.name: _recorded(run, way, weights, fits, "on") for way in ways}
    parts = []
    for way in ways:
        detectors = _detectors(
            config, way.encoded, off[way.name], on[way.name], fits, seed, run.feature_specs[run.main_probe]
        )
        detectors += head_detectors(HEAD, {seed: run.adapters[seed].folder}, {seed: on[way.name][0]}, config.axes[0])
        parts.append(_scored(config, way, detectors, run.predictions, seed))
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return shift_records(run.predictions, scores, run.main_probe, config.evaluate.resamples), left_out, scores


def _recorded(
    run: FittedRun, way: Reworded, weights: str, fits: list[ArmFit], how: str
) -> tuple[HiddenStates, HiddenStates | TokenStates]:
    """States at the layers that the fits look at, and tokens there if they look at tokens."""
    probe_input = run.feature_specs[run.main_probe]
    chosen = sorted({f.selection.best.layer for f in fits} | set(probe_input.several))
    what = f"{way.name}, adapter {how}"
    head = head_layer(run.config.adapter, run.lm.structure.n_layers)
    single = {*(chosen if probe_input.kind != "tokens" else []), *([] if head is None else [head])}
    states = record(run.engine, way.encoded, weights, sorted(single), what)
    if probe_input.kind != "tokens":
        return states, states
    return states, record_tokens(run.engine, way.encoded, weights, chosen, run.config.select.tokens, what)


def _detectors(
    config: RunConfig, encoded: Encoded, off, on, fits: list[ArmFit], seed: int, probe_input: FeatureSpec
) -> list[Detector]:
    own = [
        own_detector("base", seed, encoded, off[0], None),
        own_detector("adapter", seed, encoded, on[0], config.adapter.objective),
    ]
    views = ActivationPair.of(off[1], {seed: on[1]}).views()
    for fit in fits:
        best = fit.selection.best
        if (fit.arm, seed) not in views and (fit.arm, None) not in views:
            # A probe over tokens: in front of a reply only single states were recorded.
            continue
        view = views.get((fit.arm, seed)) or views[fit.arm, None]
        scores = best.probe.predict_proba(probe_input.of(view)(best.layer))[:, 1]
        own.append(Detector(fit.arm, fit.probe, best.layer, seed, config.axes[0], scores))
    return own


def _scored(
    config: RunConfig, shift: Reworded, detectors: list[Detector], frame: pd.DataFrame, seed: int
) -> pd.DataFrame:
    prompts = shift.encoded.prompts
    nothing = np.zeros(len(prompts), bool)
    labels = {seed: Labels.of(prompts, nothing, nothing)}
    unasked = pd.array([None] * len(prompts), dtype="boolean")
    shown = prompt_frame(prompts, nothing, unasked, config.data.data_seed, config.read)
    scores = predictions(shown, labels, detectors, config.axes[:1])
    same = frame[(frame["axis"] == config.axes[0]) & (frame["seed"] == seed)]
    carried = same.groupby(["arm", same["probe"].fillna("")])["threshold"].first()
    keys = zip(scores["arm"], scores["probe"].fillna(""))
    return scores.assign(threshold=[carried.get(key, np.nan) for key in keys], shift=shift.name)
