"""Attach a PEFT adapter to chosen linear maps of chosen blocks."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from adapterprobe.adapters.detect_head import adapted_blocks
from adapterprobe.adapters.kinds import KINDS, kind_of, looks_at_weights, peft_config
from adapterprobe.adapters.on_off import tuner_layers
from adapterprobe.adapters.residual_adapter import ResidualAdapter
from adapterprobe.adapters.sharding import refuse_offloaded, refuse_sharded
from adapterprobe.adapters.untrusted import check_patterns
from adapterprobe.adapters.weight_init import Originals, initialise, is_quantized
from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.models.blocks import Structure
from adapterprobe.models.placement import execution_device, is_offloaded, weights_here
from adapterprobe.models.roles import ROLES, find_roles

SHARED_OVER_LAYERS = {"adalora": "the ranks of all layers, to weigh them", "lily": "a factor that all layers share"}
"""Kinds that PEFT computes in one place for all layers."""


def target_names(model, structure: Structure, config: AdapterConfig) -> list[str]:
    """Full names of the modules to adapt: linear maps, or norms where the kind adapts these.

    Raises:
        ConfigError: a layer or module does not exist (says which do).
    """
    modules = config.modules
    blocks = adapted_blocks(config, structure.n_layers)
    targets = kind_of(config.kind).targets
    if targets == "blocks":
        return [f"{structure.blocks_path}.{block}" for block in blocks]
    norms = targets == "norms"
    chosen = structure.norm_names(blocks) if norms else structure.linear_names(blocks)
    if not chosen:
        raise ConfigError(f"adapter.kind={config.kind} finds nothing to adapt in blocks {config.layers} of this model")
    if modules == "all":
        return list(chosen)
    there = sorted({name.rsplit(".", 1)[-1] for name in chosen})
    by_name = [module for module in modules if module in there]
    by_role = [module for module in modules if module not in there and module in ROLES and not norms]
    for module in modules:
        if module not in (*by_name, *by_role):
            roles = "" if norms else f"; roles are {', '.join(ROLES)}"
            raise ConfigError(
                f"no module '{module}'{nearest(module, [*there, *ROLES])} in these blocks; there are {', '.join(there)}{roles}"
            )
    roles = find_roles(model, structure) if by_role else {}
    for role in by_role:
        if not any(role in roles.get(name, ()) for name in chosen):
            raise ConfigError(f"no module of these blocks has the role '{role}'; there are modules {', '.join(there)}")
    return [n for n in chosen if n.rsplit(".", 1)[-1] in by_name or roles.get(n, frozenset()) & set(by_role)]


def attach(
    model, structure: Structure, config: AdapterConfig, seed: int, originals: Originals | None = None
) -> PeftModel | ResidualAdapter:
    """Inject an untrained adapter into `model` (in place) and return PEFT's wrapper around it.

    The adapter's weights have the model's dtype (an update in another dtype is several times slower); the
    optimiser keeps fp32 copies of them. `structure` stays valid: its blocks are the same modules.

    Args:
        originals: full-precision weights of a quantised model, for the kind `loftq`.
    """
    kind = kind_of(config.kind)
    names = target_names(model, structure, config)
    if kind.targets == "blocks":
        layers = adapted_blocks(config, structure.n_layers)
        torch.manual_seed(seed)
        return ResidualAdapter(model, structure.blocks, layers, structure.width, kind, config).eval()
    targets = [model.get_submodule(name) for name in names]
    if kind.name in SHARED_OVER_LAYERS and len({execution_device(module) for module in targets}) > 1:
        raise ConfigError(
            f"adapter.kind={kind.name} has {SHARED_OVER_LAYERS[kind.name]} in one place, and the adapted layers are on several devices; use "
            "lora, or adapt layers of one device"
        )
    looks = kind.initial or looks_at_weights(kind.peft, {**kind.settings, **config.options})
    if looks and any(map(is_offloaded, targets)):
        raise ConfigError(
            f"adapter.kind={kind.name} looks at the model's own weights, and some of those in blocks {config.layers} are kept in main memory or "
            "on disk between passes; adapt blocks that stay on a device (model.max_memory), or use lora"
        )
    if not kind.quantizes and any(not m.weight.is_floating_point() for m in targets):
        able = ", ".join(k.name for k in KINDS.values() if k.quantizes)
        raise ConfigError(f"adapter.kind={kind.name} cannot adapt 8-bit or 4-bit weights; {able} can")
    # transformers' Conv1D keeps its weight transposed.
    transposed = any(type(module).__name__ == "Conv1D" for module in targets)
    widths = sorted({width for module in targets for width in module.weight.shape})
    doubled = kind.initial is not None and not (kind.initial == "loftq" and any(map(is_quantized, targets)))
    size = {"rank": 2 * config.rank, "alpha": 2 * config.alpha} if doubled else {}
    settings = peft_config(config.model_copy(update=size), names, widths, transposed)
    check_patterns(
        "adapter.options",
        {k: v for k, v in config.options.items() if isinstance(v, (str, list))},
        [n for n, _ in model.named_modules()],
    )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings(), weights_here(targets):
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(model, settings, autocast_adapter_dtype=kind.full_precision)
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        strip(model)
        raise ConfigError(
            f"adapter.kind={kind.name} does not fit this model: {str(error).splitlines()[0][:200]}"
        ) from error
    for layer in tuner_layers(model):
        follow_base(layer)
    try:
        refuse_sharded(kind.name, trainable(wrapped))
        refuse_offloaded(kind.name, trainable(wrapped))
    except ConfigError:
        strip(model)
        raise
    # Embeddings and norms: quantised weights have no such dtype.
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    for name, parameter in wrapped.named_parameters():
        if ".ranknum." in name:
            # AdaLoRA's count of ranks: PEFT leaves it trainable, and does not save it.
            parameter.requires_grad_(False)
        if parameter.requires_grad and not kind.full_precision:
            parameter.data = parameter.data.to(dtype)
    if kind.initial:
        scale = config.alpha / config.rank
        try:
            wrapped.fixed_entries = initialise(wrapped, kind.initial, config.rank, scale, doubled, originals)
        except BaseException:
            strip(model)
            raise
    return wrapped.eval()


def follow_base(layer: Any) -> None:
    """Move an adapter's weights to the device that computes the map they stand on: PEFT puts them where that map's weights are, and
    these may be elsewhere between passes."""
    base = layer.get_base_layer()
    where, inside = execution_device(base), set(base.modules())
    for module in set(layer.modules()) - inside:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type != "meta" and parameter.device != where:
                setattr(module, name, torch.nn.Parameter(parameter.detach().to(where), parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.device != where:
                setattr(module, name, buffer.to(where))


def fixed_entries(wrapped) -> dict[str, torch.Tensor]:
    """Which entries of trainable parameters never move (True), by name."""
    return getattr(wrapped, "fixed_entries", {})


def detach(wrapped: PeftModel | ResidualAdapter) -> None:
    """Take the adapter out again: the model is as it was before `attach`."""
    wrapped.unload()


def strip(model: torch.nn.Module) -> None:
    """Take out whatever adapter layers are in a model, also those of an attachment that failed half-way."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, AuxiliaryTrainingWrapper):
                setattr(parent, name, child.original_module)


def trainable(wrapped: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
