"""Initialisations from the weights themselves, with the untouched weights kept for "off".

PiSSA, OLoRA and LoftQ start an update B A from a factor of the weight and take it off the weight, W' = W - s B0 A0, so that
switching off would leave W', another model. Here the weight stays and the start is a part of the update that never moves:
s (B A - B0 A0), one LoRA of twice the rank whose second half is fixed. It computes the same, off is the untouched model, and
it is saved as plain LoRA. On 4-bit and 8-bit weights LoftQ takes nothing off: on starts near the full-precision model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from adapterprobe.errors import ConfigError
from adapterprobe.models.placement import whole

Originals = Callable[[str], torch.Tensor]
"""Gives a weight of the model by name as it was before it was quantised."""

OVERSAMPLING, ITERATIONS = 16, 8
"""Of the randomised singular value decomposition (Halko et al. 2011)."""


def is_quantized(module: torch.nn.Module) -> bool:
    return not module.get_parameter("weight").is_floating_point()


def dequantized(module: torch.nn.Module) -> torch.Tensor:
    """The weight of an 8-bit or 4-bit module as floating-point numbers; the module is left as it is (PEFT's own function
    writes into the state of 8-bit ones)."""
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    weight: Any = module.weight
    if hasattr(weight, "quant_state"):
        return dequantize_4bit(weight.data, weight.quant_state)
    state: Any = module.state
    scales = state.SCB if state.SCB is not None else weight.SCB
    return int8_vectorwise_dequant(weight.data, scales)


def _leading(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(up, down) with up @ down the best approximation of a rank: rows x rank, rank x columns."""
    size = min(rank + OVERSAMPLING, *matrix.shape)
    u, s, v = torch.svd_lowrank(matrix, q=size, niter=ITERATIONS)
    root = s[:rank].sqrt()
    return _padded(u[:, :rank] * root, (v[:, :rank] * root).T, rank)


def _padded(up: torch.Tensor, down: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the wanted rank: what a small matrix has no directions for is nought."""
    missing = rank - up.shape[1]
    return torch.nn.functional.pad(up, (0, missing)), torch.nn.functional.pad(down, (0, 0, 0, missing))


def _quantized_and_back(weight: torch.Tensor) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    return dequantize_4bit(*quantize_4bit(weight.contiguous(), quant_type="nf4"))


def factors(method: str, weight: torch.Tensor, rank: int, quantized: torch.Tensor | None = None):
    """Where an update begins: (up: outputs x rank, down: rank x inputs), whose product is

    `pissa`: the leading part of the weight (Meng et al. 2024, eq. 2-3); `olora`: of its QR decomposition (Buyukakyuz 2024);
    `loftq`: of what quantisation loses (Li et al. 2023, algorithm 1 with one step; NF4 unless `quantized` is given).

    Args:
        weight: outputs x inputs, fp32. quantized: the same weight as quantised and back.
    """
    if method == "pissa":
        return _leading(weight, rank)
    if method == "olora":
        q, r = torch.linalg.qr(weight)
        return _padded(q[:, :rank], r[:rank], rank)
    back = _quantized_and_back(weight) if quantized is None else quantized
    return _leading(weight - back, rank)


@torch.no_grad()
def initialise(
    wrapped, method: str, rank: int, scale: float, doubled: bool, originals: Originals | None
) -> dict[str, torch.Tensor]:
    """Write the start into every LoRA layer. Returns which entries of which parameters never move (True).

    Args:
        rank, scale: of the part that is trained.
        doubled: whether the start is taken off again (its second half fixed).
        originals: full-precision weights by name, where they are quantised and LoftQ needs them.

    Raises:
        ConfigError: LoftQ on quantised weights without their originals.
    """
    fixed = {}
    for name, layer in wrapped.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        base = layer.get_base_layer()
        now = dequantized(base) if is_quantized(base) else whole(base.get_parameter("weight"))
        now = now.detach().float()
        weight, quantized = now, None
        if method == "loftq" and is_quantized(base):
            if originals is None:
                raise ConfigError(
                    "adapter.kind=loftq makes up for what quantisation lost and needs the model's full-precision weights, "
                    "which are not at hand; load the model by name or folder"
                )
            path = name.removeprefix("base_model.model.") + ".weight"
            weight, quantized = originals(path).to(now.device, torch.float32), now
            if getattr(getattr(base, "source_cls", None), "__name__", "") == "Conv1D":
                # transformers' Conv1D keeps its weight transposed; what it is quantised to does not.
                weight = weight.T
        if getattr(layer, "fan_in_fan_out", False):
            weight = weight.T
        up, down = factors(method, weight, rank, quantized)
        up, down = up / scale**0.5, down / scale**0.5
        lora_a, lora_b = (side["default"].get_parameter("weight") for side in (layer.lora_A, layer.lora_B))
        if not doubled:
            lora_a.copy_(down)
            lora_b.copy_(up)
            continue
        # Rounded once, so that both halves cancel to the bit.
        lora_a.copy_(torch.cat([down, down]))
        lora_b.copy_(torch.cat([up, -up], 1))
        for key, tensor, half in (
            (f"{name}.lora_A.default.weight", lora_a, 0),
            (f"{name}.lora_B.default.weight", lora_b, 1),
        ):
            where = torch.zeros_like(tensor, dtype=torch.bool)
            where.narrow(half, rank, rank).fill_(True)
            fixed[key] = where
    return fixed
