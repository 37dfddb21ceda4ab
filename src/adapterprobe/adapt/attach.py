"""Attach a PEFT adapter to chosen linear maps of chosen blocks."""

from __future__ import annotations

import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.models.blocks import Structure
from adapterprobe.models.layers import parse_layers


def target_names(structure: Structure, layers: str, modules: list[str] | str) -> list[str]:
    """Full names of the linear maps to adapt.

    Raises:
        ConfigError: a layer or module does not exist (says which do).
    """
    chosen = structure.linear_names(parse_layers(layers, 0, structure.n_layers - 1))
    if modules == "all":
        return list(chosen)
    there = sorted({name.rsplit(".", 1)[-1] for name in chosen})
    for module in modules:
        if module not in there:
            raise ConfigError(
                f"no module '{module}'{nearest(module, there)} in these blocks; there are {', '.join(there)}"
            )
    return [name for name in chosen if name.rsplit(".", 1)[-1] in modules]


def attach(model, structure: Structure, config: AdapterConfig, seed: int) -> PeftModel:
    """Inject an untrained adapter into `model` (in place) and return PEFT's wrapper around it.

    The adapter's weights have the model's dtype (an update in another dtype is several times slower); the
    optimiser keeps fp32 copies of them. `structure` stays valid: its blocks are the same modules.
    """
    names = target_names(structure, config.layers, config.modules)
    sample = model.get_submodule(names[0])
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=names,
        # transformers' Conv1D keeps its weight transposed.
        fan_in_fan_out=type(sample).__name__ == "Conv1D",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    dtype = next(model.parameters()).dtype
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return wrapped.eval()


def detach(wrapped: PeftModel) -> None:
    """Take the adapter out again: the model is as it was before `attach`."""
    wrapped.unload()


def strip(model: torch.nn.Module) -> None:
    """Take out whatever adapter layers are in a model, also those of an attachment that failed half-way."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())


def trainable(wrapped: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
