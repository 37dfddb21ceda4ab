"""Load a causal language model from a hub id, a local folder, a GGUF file, or the default wheel."""

from __future__ import annotations

import contextlib
import hashlib
import json
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapterprobe.errors import ModelError
from adapterprobe.models.blocks import Structure, find_structure
from adapterprobe.models.checks import check_behaviour, check_weights
from adapterprobe.models.gguf import DEFAULT_NAME, converted, default_gguf, reading_part
from adapterprobe.models.hardware import dtype_name, pick_device, pick_dtype
from adapterprobe.models.placement import (
    DeviceMap,
    check_device_map,
    devices_of,
    input_device,
    is_device_map,
    memory_of,
    not_placed,
    offload_folder,
    remove_folder,
    stored_tensor,
)
from adapterprobe.models.quantize import check_quantization, keep_differentiable, quantization
from adapterprobe.models.quiet import quiet_transformers
from adapterprobe.small_files import as_path
from adapterprobe.terminal import reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".index.json")


@dataclass
class LanguageModel:
    """A model with its tokenizer and the places of its parts. The model is in eval mode, gradients off."""

    name: str
    model: PreTrainedModel
    tokenizer: Any
    structure: Structure
    source: str | None = None
    """The folder or hub id that it was loaded from."""
    options: dict = field(default_factory=dict)
    """How it was loaded from there: revision, trust_remote_code."""

    @property
    def device(self) -> torch.device:
        """Where token ids go in; a model may be spread over several devices."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def context_length(self) -> int | None:
        return _context_length(self.model.config)

    @property
    def vocabulary(self) -> int:
        """Token ids that the model has embeddings for: 0 to this, exclusive."""
        return self.model.get_input_embeddings().get_parameter("weight").shape[0]

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of configuration, weights, dtype and tokenizer: what results depend on."""
        return model_fingerprint(self.model, self.tokenizer)

    @cached_property
    def vectors_hash(self) -> str:
        """Hash of all weights that are vectors (norms and biases), in bf16: the same in whatever precision the model is
        loaded, and different for another model."""
        state = hashlib.sha256()
        # Parameters alone: quantised models keep scales of their own beside them.
        for name, tensor in sorted(self.model.named_parameters()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                state.update(name.encode())
                tensor = stored_tensor(self.model, name, tensor)
                state.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().data)
        return state.hexdigest()[:24]

    @cached_property
    def _originals(self) -> dict[str, torch.Tensor]:
        from transformers import AutoModelForCausalLM

        if self.source is None:
            raise ModelError(f"the full-precision weights of {self.name} are not at hand; load it by name or folder")
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(self.source, dtype="auto", **self.options)
        return model.state_dict()

    def original(self, name: str) -> torch.Tensor:
        """A weight as it was before it was quantised (in the dtype it was saved in, on the CPU).

        Raises:
            ModelError: the model was not loaded from anywhere.
        """
        return self._originals[name]

    def forget_originals(self) -> None:
        """Free what `original` has read."""
        self.__dict__.pop("_originals", None)


def model_fingerprint(model: PreTrainedModel, tokenizer=None) -> str:
    """Hash of every tensor's name, dtype, shape and bytes, the configuration and the tokenizer."""
    state = hashlib.sha256()
    config = model.config.to_dict()
    for volatile in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        config.pop(volatile, None)
    state.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = stored_tensor(model, name, tensor).detach().contiguous().cpu().reshape(-1)
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    if tokenizer is not None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
        state.update(content.encode())
        state.update(str(getattr(tokenizer, "chat_template", None)).encode())
    return state.hexdigest()[:24]


@dataclass(frozen=True)
class Reader:
    """How a model reads, without its weights."""

    name: str
    tokenizer: Any
    context_length: int | None
    vocabulary: int | None = None
    """Token ids that the model has embeddings for: 0 to this, exclusive."""


def load_reader(name: str | None = None, revision: str | None = None, trust_remote_code: bool = False) -> Reader:
    """Tokenizer and context length of a model.

    Raises:
        ModelError: see `load_model`.
    """
    from transformers import AutoConfig, AutoTokenizer

    shown, source = _resolve(name, reading_only=True)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            config = AutoConfig.from_pretrained(source, **options)
    except Exception as error:
        raise _not_loaded(shown, source, error) from error
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return Reader(shown, tokenizer, _context_length(config), getattr(text, "vocab_size", None))


def load_skeleton(
    name: str | None = None, dtype: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> LanguageModel:
    """A model without its weights (on PyTorch's meta device): its tokenizer, shape and places of parts, for engines that load weights by
    themselves.

    Raises:
        ModelError: see `load_model`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    precision = pick_dtype(dtype, pick_device("auto"))
    shown, source = _resolve(name)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            config = AutoConfig.from_pretrained(source, **options)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=precision, trust_remote_code=trust_remote_code)
            # Which tokens end a reply often stands there alone; a model without the file has none of its own.
            with contextlib.suppress(OSError):
                model.generation_config = GenerationConfig.from_pretrained(source, revision=revision or "main")
    except Exception as error:
        raise _not_loaded(shown, source, error) from error
    return LanguageModel(shown, model, tokenizer, find_structure(model), source, options)


def _context_length(config) -> int | None:
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)


def _not_loaded(shown: str, source: str, error: Exception) -> ModelError:
    reason = reason_of(error, 200)
    tried = "a local folder" if Path(source).is_dir() else "a hub id (no local folder or file has that name)"
    return ModelError(
        f"cannot load the model '{shown}': tried as {tried}, got {type(error).__name__}: {reason}; check the name "
        "and the connection, or give --model a local folder, a GGUF file, or nothing for the default"
    )


def _resolve(name: str | None, reading_only: bool = False) -> tuple[str, str]:
    """(name to show, folder or hub id to load from).

    Args:
        reading_only: the weights are not wanted: a GGUF file gives its tokenizer and configuration alone, in seconds.
    """
    read_gguf = reading_part if reading_only else converted
    if name is None or (name == DEFAULT_NAME and not Path(name).exists()):
        return DEFAULT_NAME, str(read_gguf(default_gguf()))
    path = as_path(name, ModelError)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{name} is a file but not a .gguf; expected a hub id, a model folder or a GGUF file")
        return path.stem, str(read_gguf(path))
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise ModelError(
                f"{name} holds an adapter (adapter_config.json); adapter off and on cannot be told apart in it: give the model it was "
                "trained on with --model and this folder with --adapter, or merge it (`adapterprobe merge`)"
            )
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} has no config.json; expected a folder made by save_pretrained or a hub snapshot")
        if not reading_only and not any(file.name.endswith(WEIGHT_SUFFIXES) for file in path.iterdir()):
            raise ModelError(
                f"{name} has no weights (no .safetensors, .bin or .gguf file); download the whole model, or name another"
            )
        return path.name, str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"no model folder or file at '{name}'; check the path, or give a hub id like 'owner/model'")
    return name, name


def load_model(
    name: str | None = None,
    device: DeviceMap = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
    quantize: str | None = None,
    max_memory: dict[int | str, int | str] | None = None,
) -> LanguageModel:
    """Load a model for probing. Weights are read straight to where they go.

    Args:
        name: hub id, local folder, GGUF file, or None for the default SmolLM2-135M-Instruct.
        device: `auto`, `cpu`, `cuda`, ...; or how accelerate spreads the model over devices, main memory and disk: `balanced`,
            `balanced_low_0`, `sequential`, or modules and their devices (`{"model.embed_tokens": 0, ..., "lm_head": "disk"}`).
        dtype: `auto` (bf16 where it is fast), `bf16`, `fp16`, `fp32`.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the model; off unless you trust it.
        attention: attention implementation, by default transformers' own choice (passes that the engine packs have
            their own).
        quantize: `8bit`, `4bit` (NF4, Dettmers et al. 2023) or None; needs bitsandbytes.
        max_memory: where the model is spread out, the most that each device holds: {0: "20GiB", "cpu": "60GiB"}.

    Raises:
        ModelError: the model cannot be found or loaded, lacks weights, or is no causal decoder with one residual stream (see
            `check_behaviour`); says what was tried and what to do.
        ConfigError: unknown device or dtype, or a device map that cannot be meant.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_device_map(device, max_memory)
    spread = is_device_map(device)
    where = pick_device("auto" if spread else str(device))
    precision = pick_dtype(dtype, where)
    if quantize:
        check_quantization(quantize)
    shown, source = _resolve(name)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    model: Any = None
    offloaded, placing = offload_folder(), False
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(source, **options)
            if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
                raise ModelError(
                    f"the model '{shown}' is an encoder with a decoder, or a decoder that looks at one ({type(config).__name__}); alone it "
                    "would run without what it was trained beside; only causal (decoder-only) language models can be read"
                )
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            extra: dict[str, Any] = {"attn_implementation": attention} if attention else {}
            if quantize:
                extra["quantization_config"] = quantization(quantize, precision)
            if spread:
                extra |= {"device_map": device, "max_memory": memory_of(max_memory), "offload_folder": str(offloaded)}
            elif quantize or where.type != "cpu":
                extra["device_map"] = {"": str(where)}
            placing = True
            loader: Any = AutoModelForCausalLM
            model, info = loader.from_pretrained(source, dtype=precision, output_loading_info=True, **options, **extra)
    except ModelError:
        raise
    except Exception as error:
        if spread and placing and isinstance(error, ValueError):
            raise not_placed(shown, device, max_memory, error) from error
        if isinstance(error, torch.OutOfMemoryError):
            raise ModelError(
                f"the model '{shown}' does not fit on {device if spread else where} ({reason_of(error, 120)}); load it in fewer bits "
                "(model.quantize), or over several devices and main memory (model.device=balanced)"
            ) from error
        raise _not_loaded(shown, source, error) from error
    finally:
        if model is None:
            remove_folder(offloaded)
    assert model is not None
    weakref.finalize(model, remove_folder, offloaded)
    check_weights(shown, info)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"'{shown}' is an adapter, and transformers has loaded it with its model; give the model it was trained on with --model and "
            "the adapter with --adapter"
        )
    if quantize:
        keep_differentiable(model)
    model = model.eval().requires_grad_(False)
    if any(part in name for name, _ in model.named_modules() for part in ("encoder_attn", "EncDecAttention")):
        raise ModelError(
            f"the model '{shown}' has attention to an encoder that is not there (encoder_attn): it is the decoder of a larger model; only "
            "causal (decoder-only) language models can be read"
        )
    structure = find_structure(model)
    check_behaviour(shown, model, structure, tokenizer)
    return LanguageModel(shown, model, tokenizer, structure, source, options)


def describe(lm: LanguageModel) -> dict[str, object]:
    """What a report says about a model."""
    return {
        "name": lm.name,
        "architecture": type(lm.model).__name__,
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "layers": lm.structure.n_layers,
        "width": lm.structure.width,
        "dtype": dtype_name(lm.dtype),
        "quantized": bool(getattr(lm.model, "is_quantized", False)),
        "device": ", ".join(devices_of(lm.model)),
        "fingerprint": lm.fingerprint,
    }
