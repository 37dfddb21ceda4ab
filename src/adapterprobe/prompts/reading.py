"""What a run reads, where its configuration does not say: of transcripts, the reply."""

from __future__ import annotations

from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config, with_changes
from adapterprobe.data.source import holds_transcripts
from adapterprobe.progress import say

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
