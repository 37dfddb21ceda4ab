"""Where a model's parts are when no one device holds it: spread over several, or in main memory or on disk until a pass needs them.

That is accelerate's `device_map`, which transformers loads by: hooks in front of modules bring inputs, and weights that are elsewhere, to
the device that computes. Its weights are then nowhere (on PyTorch's meta device) between passes; what needs them asks here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapterprobe.cache import scratch_folder
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.terminal import reason_of

MAPS = ("balanced", "balanced_low_0", "sequential")
"""How accelerate deals layers out by itself: evenly, evenly with room on the first device (for what generation keeps), or filling one
device after the other. What has no room on devices goes to main memory, then to disk."""
ELSEWHERE = ("cpu", "disk")
SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[KMG]i?B", re.IGNORECASE)
"""As accelerate reads one; or whole bytes."""

DeviceMap = str | dict[str, int | str]


def is_device_map(device: DeviceMap) -> bool:
    """Whether a model is to be spread out, rather than put on one device."""
    return isinstance(device, dict) or device in MAPS


def check_device_map(device: DeviceMap, max_memory: dict | None = None) -> None:
    """Whether a device map can be meant, before anything is loaded.

    Raises:
        ConfigError: devices that are not there, or a bound on memory where nothing is dealt out.
    """
    if max_memory is not None:
        _check_memory(device, max_memory)
    if not isinstance(device, dict):
        return
    if not device:
        raise ConfigError(
            f"the device map has no module; use {', '.join(MAPS)}, or write out modules and their devices"
        )
    for module, where in device.items():
        if where not in ELSEWHERE and (problem := _not_there(where)):
            raise ConfigError(
                f"the device map puts '{module}' on {where!r}, {problem}; use cpu, disk, or a device of this machine"
            )


def _check_memory(device: DeviceMap, max_memory: dict) -> None:
    if device not in MAPS:
        raise ConfigError(
            f"model.max_memory={max_memory} bounds what is dealt out to each device, and model.device={device} deals nothing out; set "
            f"model.device to {' or '.join(MAPS)}, or leave max_memory out"
        )
    for where, most in max_memory.items():
        named = where in ("cpu", "mps", "disk") or str(where).isdigit()
        problem = (
            None if where in ELSEWHERE else _not_there(_number(where)) if named else "which is no number of a device"
        )
        if problem or not (isinstance(most, int) or SIZE.fullmatch(str(most))):
            got = f"{where!r}, {problem}" if problem else f"{most!r}, which is no size"
            raise ConfigError(
                f"model.max_memory has {got}; expected devices and sizes, such as {{0: 20GiB, cpu: 60GiB}}"
            )


def _not_there(where: int | str) -> str | None:
    try:
        device = torch.device(where)
    except (RuntimeError, TypeError):
        return "which is no device"
    if device.type in ("cpu", "meta"):
        return None if device.type == "cpu" else "which computes nothing"
    backend = getattr(torch, device.type, None)
    count = backend.device_count() if backend is not None and hasattr(backend, "device_count") else 0
    if (device.index or 0) < count:
        return None
    return (
        f"and there are {count} devices of the kind {device.type} here"
        if count
        else f"and there is no {device.type} here"
    )


def _number(where: int | str) -> int | str:
    return int(where) if str(where).isdigit() else where


def memory_of(max_memory: dict | None) -> dict | None:
    """As accelerate takes it: devices by number."""
    return None if max_memory is None else {_number(where): most for where, most in max_memory.items()}


def not_placed(shown: str, device: DeviceMap, max_memory: dict | None, error: Exception) -> ModelError:
    """What is said of a model that could not be spread out as asked."""
    bound = "" if max_memory is None else f" and model.max_memory={max_memory}"
    return ModelError(
        f"the model '{shown}' cannot be spread out by model.device={device}{bound}: {reason_of(error, 300)}; give it more room, or write "
        "the map otherwise"
    )


def offload_folder() -> Path:
    """A name in the cache for weights that are kept on disk; nothing is there yet."""
    return scratch_folder() / f"offload-{uuid.uuid4().hex[:12]}"


def remove_folder(folder: Path) -> None:
    """Give the disk back."""
    shutil.rmtree(folder, ignore_errors=True)


def _hooks(module: nn.Module) -> Iterator[Any]:
    hook = getattr(module, "_hf_hook", None)
    yield from getattr(hook, "hooks", () if hook is None else (hook,))


def execution_device(module: nn.Module) -> torch.device:
    """The device that a module computes on: where its weights are, or where they are brought for a pass."""
    weight = next((p for p in module.parameters()), None)
    if weight is not None and weight.device.type != "meta":
        return weight.device
    for part in module.modules():
        for hook in _hooks(part):
            if getattr(hook, "execution_device", None) is not None:
                return torch.device(hook.execution_device)
    return torch.device("cpu") if weight is None else weight.device


def input_device(model: Any) -> torch.device:
    """The device that token ids go to: the one that looks up their embeddings."""
    return execution_device(model.get_input_embeddings())


def devices_of(model: Any) -> list[str]:
    """Devices that compute a part of the model, in the order of its parts."""
    return list(
        dict.fromkeys(
            str(execution_device(m)) for m in model.modules() if any(True for _ in m.parameters(recurse=False))
        )
    )


def weight_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of weights by the device that they are on; what is in main memory or on disk between passes under `elsewhere`."""
    found: dict[str, int] = {}
    for parameter in model.parameters():
        where = "elsewhere" if parameter.device.type == "meta" else str(parameter.device)
        found[where] = found.get(where, 0) + parameter.numel() * parameter.element_size()
    return found


def is_dispatched(model: nn.Module) -> bool:
    """Whether hooks of accelerate bring inputs or weights to where they are needed."""
    return any(True for module in model.modules() for _ in _hooks(module))


def is_offloaded(module: nn.Module) -> bool:
    """Whether the module's own weights are elsewhere between passes."""
    return any(getattr(hook, "offload", False) for hook in _hooks(module))


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds only a part of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, gathered from the processes if it is sharded (which all of them must ask for)."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def stored_tensor(model: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of the model's state; where a hook keeps it elsewhere, a copy of it on the CPU."""
    if tensor.device.type != "meta":
        return whole(tensor)
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if not is_offloaded(module):
        return tensor
    with weights_here([module]):
        return getattr(module, leaf).detach().clone()


@contextlib.contextmanager
def weights_here(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within, the weights of these modules that are elsewhere stand in them, on the CPU."""
    from accelerate.utils import align_module_device

    with contextlib.ExitStack() as stack:
        for module in filter(is_offloaded, modules):
            stack.enter_context(align_module_device(module, torch.device("cpu")))
        yield


@contextlib.contextmanager
def hooks_left_alone(model: Any) -> Iterator[None]:
    """Within, PEFT does not see that the model is spread out: it would take the hooks away and spread it anew by its own lights."""
    kept = vars(model).pop("hf_device_map", None)
    try:
        yield
    finally:
        if kept is not None:
            model.hf_device_map = kept
