"""What a run reads: found out where its configuration does not say, checked, and made into prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config, with_changes
from adapterprobe.data.contexts import matched_contexts
from adapterprobe.data.examples import ExampleSource
from adapterprobe.data.grouping import grouped_by_topic, grouped_together
from adapterprobe.data.items import ItemDataset, topic_of
from adapterprobe.data.relations import is_relation
from adapterprobe.data.source import holds_transcripts
from adapterprobe.progress import say
from adapterprobe.prompts.followups import follow_ups
from adapterprobe.prompts.read_prompts import check_readable, read_prompts
from adapterprobe.types import Example, Prompt

NAME = "Do its states tell a lie from an honest reply?"
"""The title of a run over replies that was started as the demo is."""


def reading_found(config: RunConfig) -> RunConfig:
    """The same configuration; where all its training data are transcripts and it does not say what is read (`read.what`), that of
    their replies, which is told. Built-in facts that a preset judges on are left out, which is told too.

    Raises:
        ConfigError: it says how questions are asked, and replies are not asked for.
    """
    if config.read.what != "reply":
        if "what" in config.read.model_fields_set:
            return config
        if not all(holds_transcripts(name, config.reading(name)) for name in config.data.train):
            config.read.refuse_unused()
            return config
        say(
            f"{', '.join(config.data.train)}: transcripts, read at their replies (read.what=reply; --set read.what=answer asks about them "
            "in a new turn instead)"
        )
    # Built-in facts come from a preset: nobody looks for replies in them.
    left_out = [name for name in config.data.ood if is_relation(name)]
    if left_out:
        say(f"not judged on {', '.join(left_out)}: there are no replies in them")
    elif config.read.what == "reply":
        return config
    ood = [name for name in config.data.ood if name not in left_out]
    name = {"name": NAME} if config.name == read_config().name else {}
    return with_changes(config, {"read": {"what": "reply"}, "data": {"ood": ood}, **name})


def read_together(
    config: RunConfig, train: list[ExampleSource], ood: list[ExampleSource]
) -> tuple[list[ExampleSource], list[ExampleSource]]:
    """The data sets as they stand beside each other. Transcripts: settings that several files share are one group. Statements: a file
    `neg_NAME` beside `NAME` denies what that affirms; where near-duplicates form their groups, they form them over both."""
    items = [dataset for dataset in (*train, *ood) if isinstance(dataset, ItemDataset)]
    if config.read.what == "reply":
        again = grouped_together(items)
    else:
        names = {dataset.name for dataset in items}
        again = [
            dataset.negations() if topic_of(dataset.name) in names - {dataset.name} else dataset for dataset in items
        ]
        again = grouped_by_topic(again)
    by_name: dict[str, ExampleSource] = {dataset.name: dataset for dataset in again}
    return [by_name.get(d.name, d) for d in train], [by_name.get(d.name, d) for d in ood]


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
            say(
                f"{dataset.name}: {matched_contexts((item.conversation, item.label) for item in getattr(dataset, 'items', ()))}"
            )


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
