"""The questions of a run put otherwise: in wordings of training, negated, in another format, informally, without their system prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from adapterprobe.config import RunConfig
from adapterprobe.data.splits import shuffled
from adapterprobe.errors import AdapterProbeError, ConfigError
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.formats import CHAT, is_chat
from adapterprobe.prompts.questions import Questions
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.prompts.templates import templates_for
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


def reworded_prompts(
    config: RunConfig, questions: Questions, tokenizer, context_length: int | None, vocabulary: int | None
) -> tuple[list[Reworded], list[dict]]:
    """The prompts of every way of `evaluate.shifts` that the data and the tokenizer allow, and the reasons why others are left out."""
    test = {example.group for example in questions.examples["test"]}
    kept = set(shuffled(sorted(test), [config.data.data_seed, 6])[:MOST_GROUPS])
    found, left_out = [], []
    for name in config.evaluate.shifts:
        try:
            changed = REWORDINGS[name](config, questions)
            asked = _some(questions, changed, kept)
            if name == "no system prompt":
                asked = replace(asked, examples={"test": [_unprompted(e) for e in asked.examples["test"]]})
            prompts, _ = prepare_prompts(changed, asked, tokenizer, context_length)
            encoded = encode(tokenizer, prompts, context_length, vocabulary)
            found.append(Reworded(name, with_reads(encoded, changed.read, tokenizer)))
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
