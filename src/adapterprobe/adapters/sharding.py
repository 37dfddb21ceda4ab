"""Base weights shared out among processes (FSDP2): each holds its part of every decoder block, and all of the adapter.

The base model is frozen and an adapter is small, so only what is frozen is sharded: its blocks gather their weights for
a pass and let them go again, no gradient of them is ever made, and the adapter's gradients are added up as without
sharding. It is asked for, and set, by accelerate's own configuration (`accelerate launch --use_fsdp --fsdp_version 2 ...`).
"""

from __future__ import annotations

import os

import torch
from torch import nn

from adapterprobe.adapters import distributed as processes
from adapterprobe.config import RunConfig
from adapterprobe.errors import ConfigError
from adapterprobe.models import LanguageModel
from adapterprobe.models.placement import is_device_map, is_sharded


def fsdp_requested() -> bool:
    """Whether accelerate's configuration asks for it."""
    return processes.count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_sharding(config: RunConfig) -> None:
    """Refuse what sharded weights cannot do, before the model is loaded.

    Raises:
        ConfigError: names it and what to do.
    """
    if processes.count() > 1 and is_device_map(config.model.device):
        raise ConfigError(
            f"model.device={config.model.device} spreads one model over all devices, and {processes.count()} processes were started, each "
            "of which would do so; start one process, or leave model.device at auto"
        )
    if not fsdp_requested():
        return
    if config.adapter.target == "reply":
        raise ConfigError(
            "adapter.target=reply lets the model write before and after training, which a sharded one does not do here; train in one process, "
            "or without FSDP"
        )
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"accelerate asks for FSDP version {version}, 2 expected; launch with --fsdp_version 2")
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        raise ConfigError(
            f"accelerate asks for mixed precision {precision}; launch with --mixed_precision no and set model.dtype"
        )
    if os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false").lower() == "true":
        raise ConfigError("set adapter.checkpoint_activations=true instead of FSDP's own activation checkpointing")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise ConfigError(
            "FSDP's offloading of parameters to the CPU is not supported; launch with --fsdp_offload_params false"
        )
    if config.model.quantize:
        raise ConfigError(
            f"model.quantize={config.model.quantize} cannot be sharded; set it to null, or launch without FSDP"
        )
    if config.adapter.objective == "detect":
        raise ConfigError(
            "adapter.objective=detect ends its passes at the head's layer, which blocks that gather their weights for a pass do not "
            "allow; launch without FSDP"
        )
    if config.adapter.train_on != "all":
        raise ConfigError(
            f"adapter.train_on={config.adapter.train_on} needs answers that a sharded model does not record; set it to all, or "
            "launch without FSDP"
        )


def shard(lm: LanguageModel, device: torch.device) -> None:
    """Share the blocks of a freshly loaded model out among the processes; everything else goes to `device` whole."""
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Hashes are of whole weights.
    _ = lm.fingerprint, lm.vectors_hash
    again = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    mesh = init_device_mesh(device.type, (processes.count(),))
    for block in lm.structure.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=again)
    _move_the_rest(lm.model, device)


def _move_the_rest(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if not is_sharded(parameter):
                parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer is not None:
                setattr(module, name, buffer.to(device))


def refuse_sharded(kind: str, trainable: dict[str, nn.Parameter]) -> None:
    """Refuse adapters that train the model's own weights, or copies of them.

    Raises:
        ConfigError: one of the trainable tensors is sharded.
    """
    for name, parameter in trainable.items():
        if is_sharded(parameter):
            raise ConfigError(
                f"adapter.kind={kind} trains {name}, a copy of weights that are sharded. Under FSDP use a kind of its own weights (lora, ia3, "
                "linear, bias ...); under tensor parallelism no adapter is trained: start one process, and model.device=balanced spreads "
                "the model over several devices"
            )


def refuse_offloaded(kind: str, trainable: dict[str, nn.Parameter]) -> None:
    """Refuse adapters that train weights which are nowhere between passes.

    Raises:
        ConfigError: one of the trainable tensors is kept in main memory or on disk.
    """
    for name, parameter in trainable.items():
        if parameter.device.type == "meta":
            raise ConfigError(
                f"adapter.kind={kind} trains {name}, a weight of the model that is kept in main memory or on disk between passes; use a kind "
                "of its own weights (lora, ia3, linear ...), or give the model more room (model.device, model.max_memory)"
            )
