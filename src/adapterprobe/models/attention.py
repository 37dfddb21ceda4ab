"""Another attention in the place of a model's own, by transformers' attention interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn


def attention_configs(model: nn.Module) -> list[Any]:
    """The configurations by which a model's modules choose their attention; none where they cannot choose."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return [config for config in configs.values() if hasattr(config, "_attn_implementation_internal")]


def register_attention(name: str, attend: Callable, mask: Callable) -> None:
    """Make an attention available to transformers' models by name: `attend` as its attention interface calls it, `mask` likewise."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, mask)


@contextlib.contextmanager
def attention_replaced(configs: Sequence[Any], name: str) -> Iterator[None]:
    """Within, the models of `configs` use the attention called `name`."""
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation_internal = own
