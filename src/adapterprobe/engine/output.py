"""What a forward pass leaves, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapterprobe.errors import ModelError


@dataclass(frozen=True, slots=True)
class Output:
    """What a forward pass leaves: `logits` rows x vocabulary; `states` layers x rows x width, or None."""

    logits: torch.Tensor
    states: torch.Tensor | None

    @property
    def recorded(self) -> torch.Tensor:
        """The states of a pass that was asked for them."""
        assert self.states is not None, "the pass was run with states=False"
        return self.states


def joined(parts: Sequence[Output], reads: int) -> Output:
    """Passes over consecutive rows as one over all of them; states of each of the `reads` stand together."""
    if len(parts) == 1:
        return parts[0]
    logits = torch.cat([part.logits for part in parts])
    if parts[0].states is None:
        return Output(logits, None)
    by_read = [part.recorded.unflatten(1, (reads, -1)) for part in parts]
    return Output(logits, torch.cat(by_read, dim=2).flatten(1, 2))


def relative_gap(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to scale; of layers x rows x width, the largest over layers, each on its own scale."""
    if got.ndim == 3:
        return float(torch.tensor([relative_gap(a, b) for a, b in zip(got, expected, strict=True)]).max())
    got, expected = got.float(), expected.float()
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def check_finite(output: Output, what: str) -> None:
    """Refuse logits or states with NaN or infinity.

    Raises:
        ModelError: names the first layer that is not finite and the usual remedy.
    """
    if output.states is not None:
        finite = torch.isfinite(output.states).flatten(1).all(1)
        if not bool(finite.all()):
            layer = int((~finite).nonzero()[0])
            raise ModelError(
                f"{what}: the hidden states after {layer} blocks are not finite in {output.states.dtype}; "
                "use dtype=bf16 or dtype=fp32"
            )
    if not bool(torch.isfinite(output.logits).all()):
        raise ModelError(f"{what}: the logits are not finite in {output.logits.dtype}; use dtype=bf16 or dtype=fp32")
