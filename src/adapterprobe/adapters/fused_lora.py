"""LoRA's forward and backward pass as one operation for each adapted linear map.

y = x W' + s (x A') B' by PEFT is a chain of products, scalings and additions, each with its own node in the graph and
its own copy of the activations. Here the update is added to the output in place, and its gradients (Hu et al. 2021,
section 4.1) are written out. Anything but plain LoRA runs as PEFT runs it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from adapterprobe.models.placement import is_offloaded


class _FusedLora(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, down, up, scale: float):
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ down.t()
        out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        out.addmm_(low, up.t(), alpha=scale)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        flat, low, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        low_grad = (grad @ up).mul_(ctx.scale)
        back = None
        if ctx.needs_input_grad[0]:
            back = (grad @ weight).addmm_(low_grad, down).view(ctx.shape)
        return back, None, None, low_grad.t() @ flat, (grad.t() @ low).mul_(ctx.scale), None


def _eligible(layer: nn.Module) -> TypeGuard[LoraLinear]:
    """Whether a module is plain LoRA on a plain linear map: one adapter, no dropout, no variant, all of one dtype."""
    if type(layer) is not LoraLinear or len(layer.active_adapters) != 1 or layer.merged:
        return False
    (name,) = layer.active_adapters
    base = layer.get_base_layer()
    return bool(
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and not is_offloaded(base)
        and (base.bias is None or not base.bias.requires_grad)
        and name not in layer.lora_variant
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and layer.lora_B[name].bias is None
        and layer.lora_A[name].weight.dtype == layer.lora_B[name].weight.dtype == base.weight.dtype
    )


def _forward(layer: Any, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    name = layer.active_adapters[0]
    base = layer.get_base_layer()
    if layer.disable_adapters or layer.merged:
        return base(x)
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _FusedLora.apply(x, base.weight, base.bias, down, up, layer.scaling[name])


@contextlib.contextmanager
def fused_lora(model: nn.Module) -> Iterator[int]:
    """Within, plain LoRA layers compute as one operation; yields how many do."""
    layers: list[Any] = [module for module in model.modules() if _eligible(module)]
    try:
        for layer in layers:
            layer.forward = functools.partial(_forward, layer)
        yield len(layers)
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
