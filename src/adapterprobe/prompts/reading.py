"""What a run reads: found out where its configuration does not say, checked, and made into prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config, with_changes
from adapterprobe.data.contexts import matched_contexts
from adapterprobe.data.examples import ExampleSource
from adapterprobe.data.source import holds_transcripts
from adapterprobe.progress import say
from adapterprobe.prompts.followups import follow_ups
from adapterprobe.prompts.read_prompts import check_readable, read_prompts
from adapterprobe.types import Example, Prompt

NAME = "Do its states tell a lie from an honest reply?"
"""The title of a run over replies that was started as the demo is."""


def reading_found(config: RunConfig) -> RunConfig:
    """The same configuration; where all its training data are transcripts and it does not say what is read (`read.what`), that of
    their replies, which is told. Data sets that are only judged on stay if they are transcripts too.

    Raises:
        ConfigError: it says how questions are asked, and replies are not asked for.
    """
    if "read" in config.model_fields_set or not all(
        holds_transcripts(name, config.reading(name)) for name in config.data.train
    ):
        return config
    ood = [name for name in config.data.ood if holds_transcripts(name, config.reading(name))]
    say(
        f"{', '.join(config.data.train)}: transcripts, read at their replies (read.what=reply; --set read.what=answer asks about them in "
        "a new turn instead)"
    )
    if left_out := [name for name in config.data.ood if name not in ood]:
        say(f"not judged on {', '.join(left_out)}: there are no replies in them")
    name = {"name": NAME} if config.name == read_config().name else {}
    return with_changes(config, {"read": {"what": "reply"}, "data": {"ood": ood}, **name})


def check_reading(config: RunConfig, datasets: Sequence[ExampleSource]) -> None:
    """Whether all data sets have what shall be read; of transcripts, how many contexts have replies of both labels is told: where none
    has, no detector can be shown to read the reply.

    Raises:
        DataError: a data set without replies, or without statements.
        ConfigError: no such follow-up.
    """
    follow_ups(config.read.what, config.elicit.templates)
    for dataset in datasets:
        check_readable(dataset, config.read.what)
        if config.read.what == "reply":
            say(f"{dataset.name}: {matched_contexts(getattr(dataset, 'items', ()))}")


def prompts_by_split(
    config: RunConfig,
    examples: Mapping[str, Sequence[Example]],
    roles: Mapping[str, str],
    tokenizer,
    context_length: int | None,
) -> list[Prompt]:
    """Prompts that are read at a reply or a statement, each with a follow-up of its split's role.

    Args:
        examples, roles: by split.
        context_length: see `read_prompts`.
    """
    what, names = config.read.what, config.elicit.templates
    return [
        prompt
        for split, mine in examples.items()
        if mine
        for prompt in read_prompts(
            mine,
            split,
            config.read,
            config.elicit.format,
            tokenizer,
            follow_ups(what, names, roles[split]),
            config.data.data_seed,
            context_length,
        )
    ]
