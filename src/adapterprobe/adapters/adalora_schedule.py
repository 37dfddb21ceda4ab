"""AdaLoRA's ranks, dealt out while it is trained (Zhang et al. 2023): PEFT's allocator, at the places of our loop."""

from __future__ import annotations

import torch

from adapterprobe.adapters.optimizer import Optimiser, Tensors

WARM, FINE = 0.1, 0.3
"""Shares of the steps before ranks are taken away, and after the last was."""
LEAST = 4
"""Steps below which nothing is dealt out."""


class RankAllocation:
    """Of an attached AdaLoRA adapter.

    Args:
        total: optimiser steps of the training.
    """

    def __init__(self, wrapped, total: int) -> None:
        self.tuner = wrapped.base_model
        self.config = wrapped.peft_config["default"]
        self.config.total_step = total
        self.config.tinit, self.config.tfinal = round(WARM * total), round(FINE * total)
        self.works = total >= LEAST

    @staticmethod
    def of(wrapped, total: int) -> RankAllocation | None:
        """For an adapter that needs it."""
        tuner = getattr(wrapped, "base_model", None)
        return RankAllocation(wrapped, total) if hasattr(tuner, "rankallocator") else None

    def penalty(self) -> torch.Tensor:
        """Mean distance of the singular vectors from orthogonality, weighted (eq. 3)."""
        parts = []
        for name, parameter in self.tuner.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p = parameter.float()
                square = p @ p.T if "lora_A" in name else p.T @ p
                parts.append(torch.linalg.norm(square - torch.eye(len(square), device=p.device)))
        return self.config.orth_reg_weight * torch.stack(parts).mean()

    def after_step(self, optimiser: Optimiser) -> None:
        """Score the ranks by the gradients that the parameters still hold, and take the least important away."""
        if not self.works or any(p.grad is None for p in optimiser.parameters.values()):
            return
        self.tuner.update_and_allocate(optimiser.taken)
        for name in optimiser.parameters:
            if "lora_E" in name:
                optimiser.read_back(name)

    def state(self) -> Tensors:
        allocator = self.tuner.rankallocator
        found = {
            f"rank.{kind}.{name}": tensor
            for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, tensor in getattr(allocator, kind).items()
        }
        pattern = self.config.rank_pattern or {}
        return found | {f"rank.pattern.{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def load(self, tensors: Tensors) -> None:
        allocator = self.tuner.rankallocator
        device = next(self.tuner.parameters()).device
        for key, tensor in tensors.items():
            if key.startswith("rank.pattern."):
                self.config.rank_pattern = (self.config.rank_pattern or {}) | {
                    key.removeprefix("rank.pattern."): tensor.tolist()
                }
            elif key.startswith("rank."):
                kind, name = key.removeprefix("rank.").split(".", 1)
                getattr(allocator, kind)[name] = tensor.to(device)

    def finish(self) -> None:
        """Ranks that were taken away are nought in the weights; a saved adapter keeps its full shape, so that it loads
        as it is."""
        self.config.rank_pattern = None
