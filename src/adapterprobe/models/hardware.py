"""Device and number format by what the hardware does well."""

from __future__ import annotations

import torch

from adapterprobe.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ALIASES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16", "float": "fp32"}


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"no device '{name}'; use auto, cpu, cuda, cuda:1, mps ..., or balanced or sequential for all devices together"
        ) from error
    if (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise ConfigError(f"device '{name}' is not available on this machine; use device=cpu or auto")
    return device


def _cpu_has_fast_bf16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` takes bf16 where the hardware multiplies it faster than fp32.

    Raises:
        ConfigError: unknown name.
    """
    if name != "auto":
        short = ALIASES.get(name, name)
        if short not in DTYPES:
            raise ConfigError(f"no dtype '{name}'; use auto, {', '.join(DTYPES)}")
        return DTYPES[short]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_fast_bf16() else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return next(short for short, known in DTYPES.items() if known == dtype)
