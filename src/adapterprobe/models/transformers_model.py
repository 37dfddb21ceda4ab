"""A transformers model that the user has already loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from adapterprobe.errors import ModelError
from adapterprobe.models.blocks import find_structure
from adapterprobe.models.checks import check_behaviour
from adapterprobe.models.load import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def wrap_model(model: nn.Module, tokenizer: Any, name: str | None = None) -> LanguageModel:
    """Make a loaded transformers model ready for probing: eval mode, gradients off (they stay so), nothing else is changed.

    Args:
        model: a causal language model, on one device, without an adapter.
        tokenizer: its tokenizer.
        name: what results call it; default: where it was loaded from, else its class.

    Raises:
        ModelError: no tokenizer, an adapter inside, parts on several devices, or no causal decoder with one residual stream.
    """
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise ModelError(
            f"expected a transformers model, got {type(model).__name__}; give a name, a folder or a loaded model"
        )
    if tokenizer is None or not callable(tokenizer):
        raise ModelError("a loaded model needs its tokenizer beside it: load_model(model, tokenizer=tokenizer)")
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            "the model has an adapter attached, so adapter off and on cannot be told apart; give the model without it "
            "(`model.unload()` takes one out), and the adapter's folder as `adapter`"
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ModelError(f"the model's weights are on several devices ({', '.join(devices)}); one is expected")
    source = getattr(model.config, "_name_or_path", "") or None
    shown = name or (Path(source).name if source and Path(source).is_dir() else source) or type(model).__name__
    model.eval().requires_grad_(False)
    loaded = cast("PreTrainedModel", model)
    structure = find_structure(loaded)
    check_behaviour(shown, loaded, structure, tokenizer)
    return LanguageModel(shown, loaded, tokenizer, structure, source)
