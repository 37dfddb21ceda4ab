"""Activations computed again in backward passes, instead of being kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from adapterprobe.errors import ModelError


@contextlib.contextmanager
def activations_again(model, wanted: bool) -> Iterator[None]:
    """Within, activations are computed again in backward passes.

    Raises:
        ModelError: the architecture does not offer it.
    """
    if not wanted:
        yield
        return
    # transformers has renamed these on its way through version 5.
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    try:
        getattr(model, f"{word}_checkpointing_enable")({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"{type(model).__name__} offers no activation checkpointing; set adapter.checkpoint_activations=false and a "
            "smaller adapter.micro_batch"
        ) from error
    try:
        yield
    finally:
        getattr(model, f"{word}_checkpointing_disable")()
