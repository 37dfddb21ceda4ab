"""AdamW on fp32 copies of the trainable weights, with a schedule, whole state in and out."""

from __future__ import annotations

import torch

from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ModelError

Tensors = dict[str, torch.Tensor]


class Optimiser:
    """fp32 copies take the updates (small ones would be lost in bf16) and are rounded back into the model.

    The learning rate rises over the first `warmup` of `total` steps, then falls to nothing.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], config: AdapterConfig, total: int) -> None:
        self.parameters, self.config, self.total = parameters, config, total
        self.copies = {n: p.detach().float().clone().requires_grad_() for n, p in parameters.items()}
        self.adam = torch.optim.AdamW(self.copies.values(), lr=config.lr, weight_decay=config.weight_decay)
        self.taken = 0

    def rate(self) -> float:
        """Learning rate of the next step."""
        rise = max(1, round(self.config.warmup * self.total))
        falling = max(0.0, (self.total - self.taken) / max(1, self.total - rise))
        return self.config.lr * min((self.taken + 1) / rise, falling)

    def step(self) -> None:
        """One update from the gradients that the parameters hold.

        Raises:
            ModelError: a gradient is not finite; nothing was changed.
        """
        for name, parameter in self.parameters.items():
            self.copies[name].grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None
        self._refuse_non_finite()
        torch.nn.utils.clip_grad_norm_(self.copies.values(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = self.rate()
        self.adam.step()
        self._write_back()
        self.taken += 1

    def _refuse_non_finite(self) -> None:
        for name, copy in self.copies.items():
            if copy.grad is not None and not bool(torch.isfinite(copy.grad).all()):
                raise ModelError(
                    f"the gradient of {name} is not finite; the adapter was left as it was: lower adapter.lr, or use "
                    "model.dtype=bf16 or fp32"
                )

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.copies[name])

    @torch.no_grad()
    def set_weights(self, tensors: Tensors) -> None:
        for name, copy in self.copies.items():
            copy.copy_(tensors[name])
        self._write_back()

    def weights(self) -> Tensors:
        return {name: copy.detach().clone() for name, copy in self.copies.items()}

    def state(self) -> Tensors:
        """Weights and moments, to be stored."""
        moments = {
            f"{short}.{name}": self.adam.state[copy][long]
            for name, copy in self.copies.items()
            for short, long in (("m", "exp_avg"), ("v", "exp_avg_sq"))
            if copy in self.adam.state
        }
        return {f"now.{name}": tensor for name, tensor in self.weights().items()} | moments

    def load(self, tensors: Tensors, taken: int) -> None:
        self.set_weights({name: tensors[f"now.{name}"] for name in self.copies})
        for name, copy in self.copies.items():
            if f"m.{name}" in tensors:
                self.adam.state[copy] = {
                    "step": torch.tensor(float(taken)),
                    "exp_avg": tensors[f"m.{name}"].to(copy.device),
                    "exp_avg_sq": tensors[f"v.{name}"].to(copy.device),
                }
        self.taken = taken
