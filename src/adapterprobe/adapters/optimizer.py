"""AdamW on fp32 copies of the trainable weights, with a schedule, whole state in and out."""

from __future__ import annotations

import torch

from adapterprobe.adapters.kinds import rate_of
from adapterprobe.config import AdapterConfig

Tensors = dict[str, torch.Tensor]


class Optimiser:
    """fp32 copies take the updates (small ones would be lost in bf16) and are rounded back into the model.

    The learning rate rises over the first `warmup` of `total` steps, then falls to nothing.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        config: AdapterConfig,
        total: int,
        fixed: Tensors | None = None,
    ) -> None:
        self.parameters, self.config, self.total = parameters, config, total
        self.fixed = fixed or {}
        """By name of a parameter: True where its entries stay as they are."""
        self.copies = {n: p.detach().float().clone().requires_grad_() for n, p in parameters.items()}
        self.lr = rate_of(config)
        # A head reads scaled states, so it learns at another rate than the adapter.
        own = [n for n in self.copies if n.startswith("detect_head.")]
        rates = [(self.lr, [n for n in self.copies if n not in own]), (config.head_lr, own)]
        self._clipped = [[self.copies[n] for n in names] for _, names in rates if names]
        groups = [
            {"params": [self.copies[n] for n in names], "lr": rate, "peak": rate} for rate, names in rates if names
        ]
        self.adam = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.taken = 0
        self.skipped = 0

    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.lr * self._share()

    def _share(self) -> float:
        """Of the peak rate."""
        rise = max(1, round(self.config.warmup * self.total))
        falling = max(0.0, (self.total - self.taken) / max(1, self.total - rise))
        return min((self.taken + 1) / rise, falling)

    def take_gradients(self, scale: float = 1.0) -> str | None:
        """Take what the parameters hold, divided by `scale`, as the gradients of the next step. Returns the name of the
        first that is not finite, if any."""
        for name, parameter in self.parameters.items():
            copy = self.copies[name]
            copy.grad = parameter.grad.float() / scale if parameter.grad is not None else None
            if copy.grad is not None and name in self.fixed:
                copy.grad.masked_fill_(self.fixed[name], 0.0)
        return next((n for n, c in self.copies.items() if c.grad is not None and not c.grad.isfinite().all()), None)

    def step(self) -> None:
        """One update from the gradients that were taken."""
        for tensors in self._clipped:
            torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * self._share()
        before = {name: self.copies[name].detach().clone() for name in self.fixed}
        self.adam.step()
        with torch.no_grad():
            for name, where in self.fixed.items():
                self.copies[name].copy_(torch.where(where, before[name], self.copies[name]))
        self._write_back()
        self.taken += 1

    def skip(self) -> None:
        """Let a step go by: the schedule goes on, the weights stay."""
        self.taken += 1
        self.skipped += 1

    def forget_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def read_back(self, name: str) -> None:
        """Take over a parameter that something else has changed."""
        self.copies[name].copy_(self.parameters[name])

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

    def load(self, tensors: Tensors, taken: int, skipped: int = 0) -> None:
        self.set_weights({name: tensors[f"now.{name}"] for name in self.copies})
        for name, copy in self.copies.items():
            if f"m.{name}" in tensors:
                self.adam.state[copy] = {
                    "step": torch.tensor(float(taken - skipped)),
                    "exp_avg": tensors[f"m.{name}"].to(copy.device),
                    "exp_avg_sq": tensors[f"v.{name}"].to(copy.device),
                }
        self.taken, self.skipped = taken, skipped
