"""What an adapter learns from, and what can be refused before it does."""

from __future__ import annotations

import numpy as np

from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.kinds import check_kind, unused
from adapterprobe.adapters.neutral_text_drift import neutral_paragraphs
from adapterprobe.adapters.tracking import check_trackers
from adapterprobe.config import AdapterConfig, RunConfig
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.knowledge import Knowledge
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded


def check_adapter(config: AdapterConfig) -> None:
    """Everything about an adapter's configuration that can be known before a model is loaded; settings that say nothing to
    its kind are named.

    Raises:
        ConfigError: unknown kind or option, or a library that is missing.
        DataError: neutral text that cannot be read.
    """
    check_kind(config)
    if config.group_dro and processes.count() > 1:
        raise ConfigError(
            f"adapter.group_dro weighs groups by the losses of one process, and {processes.count()} are at work; train in one, or leave it out"
        )
    check_trackers(config.track)
    neutral_paragraphs(config.neutral_text)
    for setting in unused(config):
        say(f"adapter.{setting} says nothing to the kind '{config.kind}'")


def check_shares(config: RunConfig) -> None:
    """Refuse splits without a share, which a run cannot do without.

    Raises:
        ConfigError: there is one.
    """
    empty = [name for name, share in config.data.shares.items() if share == 0]
    if empty:
        raise ConfigError(
            f"data.shares gives nothing to {', '.join(empty)}, which a run needs; give each split a share"
        )


def refuse_training_only(config: RunConfig) -> None:
    """Refuse to compare answers by an adapter that learns whole replies, or by several of them, or to plan such a training.

    Raises:
        ConfigError: the configuration is for `adapterprobe train` alone.
    """
    if config.variants:
        raise ConfigError(
            f"variants ({', '.join(config.variants)}) are several adapters for `adapterprobe train`; run on one of them, or on the models "
            "that it makes"
        )
    if config.adapter.target == "reply":
        raise ConfigError(
            "adapter.target=reply makes a model that speaks differently: train it with `adapterprobe train`, let it talk with `adapterprobe "
            "generate`, and run on its replies; here the adapter is a probe (target=answer)"
        )


def one_process(command: str) -> None:
    """Refuse to run what several processes would do several times.

    Raises:
        ConfigError: there are several.
    """
    if processes.count() > 1:
        raise ConfigError(
            f"`adapterprobe {command}` runs in one process; train with `torchrun --nproc_per_node N -m adapterprobe.cli train ...`, and "
            f"`adapterprobe {command}` finds that adapter in the cache"
        )


def training_prompts(config: RunConfig, encoded: Encoded, belief: Knowledge | None) -> tuple[Encoded, Encoded]:
    """Prompts of adapter-train and of select that the adapter is trained and stopped on.

    Args:
        belief: what the model knows of them; needed where `adapter.train_on` is not all.

    Raises:
        DataError: too few groups are known.
    """
    found = []
    for split, least in (("adapter-train", config.data.min_groups), ("select", 2)):
        part = encoded.subset(encoded.where(split))
        if config.adapter.train_on != "all":
            assert belief is not None
            prompts = list(part.prompts)
            if config.adapter.train_on == "known":
                held = belief.of(prompts)
            else:
                held = belief.recalled_of(prompts).fillna(False).to_numpy(bool)
            groups = {prompt.example.group for prompt in prompts}
            left = {prompt.example.group for prompt, kept in zip(prompts, held, strict=True) if kept}
            if len(left) < least:
                raise DataError(
                    f"adapter.train_on={config.adapter.train_on} leaves {len(left)} of {len(groups)} groups of {split}, at "
                    f"least {least} expected: the model knows too little of them; use train_on=recalled or all, or other data"
                )
            part = part.subset(np.flatnonzero(held).tolist())
        found.append(part)
    return found[0], found[1]
