"""Weights in 8 or 4 bits, by bitsandbytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adapterprobe.errors import ConfigError

BITS = ("8bit", "4bit")


def check_quantization(name: str) -> None:
    """Whether weights can be quantised here.

    Raises:
        ConfigError: unknown name, or bitsandbytes is not installed.
    """
    if name not in BITS:
        raise ConfigError(f"no quantisation '{name}'; use {' or '.join(BITS)}, or none")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"quantize={name} needs bitsandbytes, which is not installed; pip install bitsandbytes")


def keep_differentiable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for CPU inference: it does so at the first pass without gradients,
    never undoes it, and a product with repacked weights has no gradient (it is left out with a mere warning)."""
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.__dict__["support_avx512bf16_for_cpu"] = False


def quantization(name: str, dtype: torch.dtype):
    """transformers' configuration for it; products are computed in `dtype`."""
    from transformers import BitsAndBytesConfig

    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@contextmanager
def tokens_apart(model: torch.nn.Module) -> Iterator[None]:
    """Within, 8-bit products round each token by itself.

    Else a column of inputs in which any token of the pass exceeds a bound is computed in full precision for all of them (LLM.int8,
    Dettmers et al. 2022), so that what a token gets hangs on the others a little, later ones as well.
    """
    found = (getattr(module, "state", None) for module in model.modules())
    states: list[Any] = [state for state in found if hasattr(state, "threshold")]
    before = [state.threshold for state in states]
    try:
        for state in states:
            state.threshold = 0.0
        yield
    finally:
        for state, bound in zip(states, before, strict=True):
            state.threshold = bound
