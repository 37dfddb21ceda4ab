"""A second device on a machine that has one: tensors that say they are on it, computed on the CPU, and refused where they meet others.

By PyTorch's place for backends written in Python. What this cannot show is speed and rounding; what it shows is every tensor that would
have been on the wrong device.
"""

import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
DEVICE = f"{NAME}:0"
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}
"""Which take an index that is on the CPU."""


class Pretended(torch.Tensor):
    """`inner`, said to be elsewhere."""

    @staticmethod
    def __new__(cls, inner, requires_grad=None):
        if requires_grad is not None:
            # As accelerate makes a parameter of what it has brought.
            return torch.nn.Parameter(inner if inner.device.type == "meta" else cls(here(inner)), requires_grad)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner, requires_grad=None):
        if requires_grad is None:
            self.inner = inner

    def tolist(self):
        return self.inner.tolist()

    @property
    def data(self):
        return Pretended(self.inner.detach())

    @data.setter
    def data(self, value):
        self.inner = value.inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    # A number on the CPU goes with anything.
    devices = {t.device.type for t in tensors if t.ndim or t.device.type != "cpu"}
    asked = kwargs.get("device")
    if func in INDEXED and tensors[0].device.type == NAME:
        devices = {NAME}
    if len(devices) > 1 and func not in MOVES:
        raise RuntimeError(f"{func}: tensors on several devices: {[(tuple(t.shape), str(t.device)) for t in tensors]}")
    if asked is not None:
        there = torch.device(asked).type == NAME
    elif func in MOVES:
        there = tensors[0].device.type == NAME
    else:
        there = NAME in devices
    bare = {id(t.inner): t for t in tensors if isinstance(t, Pretended)}
    unwrapped = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    if asked is not None:
        unwrapped[1]["device"] = "cpu" if there else asked
    out = func(*unwrapped[0], **unwrapped[1])
    if not there:
        return out

    def wrapped(found):
        if not isinstance(found, torch.Tensor):
            return found
        return bare[id(found)] if id(found) in bare else Pretended(found)

    return tree_map(wrapped, out)


class PretendedDevice(TorchDispatchMode):
    """Within, the device `pretended:0` is there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def register() -> None:
    """Once in a process, and for good."""
    _setup_privateuseone_for_python_backend(NAME)
    # `torch.tensor` makes its numbers on the CPU first, and moves them where we see it.
    torch._C._set_only_lift_cpu_tensors(True)
    # safetensors asks for addresses.
    for name in ("storage_ptr", "storage_size"):
        plain = getattr(safetensors.torch, name)
        setattr(safetensors.torch, name, lambda tensor, plain=plain: plain(here(tensor)))
    flatten = safetensors.torch._flatten_as_ptr
    safetensors.torch._flatten_as_ptr = lambda tensors, kept: flatten({n: here(t) for n, t in tensors.items()}, kept)


def here(tensor: torch.Tensor) -> torch.Tensor:
    """What is really there."""
    return tensor.inner if isinstance(tensor, Pretended) else tensor
