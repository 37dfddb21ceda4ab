"""A transformers model that the user has already loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from adapterprobe.errors import ModelError
from adapterprobe.models.blocks import find_structure
from adapterprobe.models.checks import check_behaviour
from adapterprobe.models.load import LanguageModel
from adapterprobe.models.placement import is_dispatched

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def wrap_model(model: nn.Module, tokenizer: Any, name: str | None = None) -> LanguageModel:
    """Make a loaded transformers model ready for probing: eval mode, gradients off (they stay so), nothing else is changed.

    Args:
        model: a causal language model, on one device or spread out by a `device_map`, without an adapter.
        tokenizer: its tokenizer.
        name: what results call it; default: where it was loaded from, else its class.

    Raises:
        ModelError: no tokenizer, an adapter inside, parts on several devices without a `device_map`, or no causal decoder with one residual stream.
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
    if len(devices) > 1 and not is_dispatched(model):
        raise ModelError(
            f"the model's weights are on several devices ({', '.join(devices)}), and nothing brings what they compute from one to the next; "
            "load it with a device_map, or put it on one device"
        )
    source = getattr(model.config, "_name_or_path", "") or None
    shown = name or (Path(source).name if source and Path(source).is_dir() else source) or type(model).__name__
    model.eval().requires_grad_(False)
    loaded = cast("PreTrainedModel", model)
    structure = find_structure(loaded)
    check_behaviour(shown, loaded, structure, tokenizer)
    return LanguageModel(shown, loaded, tokenizer, structure, source)
