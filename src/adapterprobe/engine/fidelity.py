"""How far the engine is from the plain forward pass, on a user's own model, prompts and dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adapterprobe.engine.forward import Engine
from adapterprobe.engine.output import relative_gap
from adapterprobe.errors import ModelError
from adapterprobe.models.placement import input_device

LARGEST_COPY = 8 << 30
"""Bytes up to which an fp32 copy of the model is made for comparison."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Largest differences, each relative to the scale (largest absolute value) of what is compared."""

    prompts: int
    dtype: str
    logits: float
    states: float
    """Over all layers, each relative to its own scale."""
    exact_logits: float | None
    """The engine in this dtype against the plain pass in fp32; None for fp32, and where an fp32 copy would be too
    large."""
    exact_states: float | None
    rounding_logits: float | None
    """The plain pass in this dtype against the plain pass in fp32: what the dtype itself costs."""
    rounding_states: float | None

    def __str__(self) -> str:
        text = (
            f"fidelity on {self.prompts} prompts in {self.dtype}, largest difference relative to scale: engine against "
            f"plain forward pass, logits {self.logits:.1e}, states {self.states:.1e}"
        )
        if self.rounding_logits is not None:
            text += (
                f"; against plain fp32, logits {self.exact_logits:.1e}, states {self.exact_states:.1e} (the plain "
                f"{self.dtype} pass: {self.rounding_logits:.1e}, {self.rounding_states:.1e})"
            )
        return text


@torch.no_grad()
def _plain(model: nn.Module, blocks: Any, sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and states (layers x rows x width, before the final norm) of rows run one by one, unpadded: what enters each block, and
    what leaves the last, with whatever an adapter adds behind a block."""
    logits, states = [], []
    for ids in sequences:
        kept: list[torch.Tensor] = []

        def entering(module, args, kwargs, kept=kept):
            kept.append(args[0] if args else kwargs["hidden_states"])

        def leaving(module, args, out, kept=kept):
            kept.append(out[0] if isinstance(out, (tuple, list)) else out)

        handles = [block.register_forward_pre_hook(entering, with_kwargs=True) for block in blocks]
        handles.append(blocks[-1].register_forward_hook(leaving))
        try:
            tokens = torch.tensor([list(ids)], device=input_device(model))
            out = model(input_ids=tokens, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        # A model's blocks may be on several devices.
        logits.append(out.logits[0, -1].float().cpu())
        states.append(torch.stack([h[0, -1].float().cpu() for h in kept]))
    return torch.stack(logits), torch.stack(states, 1)


FURTHEST = {"fp32": 1e-3, "half": 0.1, "quantised": 0.2}
"""How far the engine may be from the plain pass, relative to scale; in half precision three times what rounding itself costs, if
that is more."""


def faithful(engine: Engine, sequences: Sequence[Sequence[int]], exact: bool = True) -> Fidelity:
    """`fidelity`, where a difference beyond rounding stops whatever was going to be recorded.

    Raises:
        ModelError: how far apart they are, and what is allowed.
    """
    found = fidelity(engine, sequences, exact)
    quantised = getattr(engine.model, "is_quantized", False)
    allowed = FURTHEST["quantised" if quantised else "fp32" if engine.model.dtype == torch.float32 else "half"]
    rounding = max(found.rounding_logits or 0.0, found.rounding_states or 0.0)
    if not max(found.logits, found.states) <= max(allowed, 3 * rounding):
        raise ModelError(
            f"{found}; at most {max(allowed, 3 * rounding):.1e} is rounding: this model or adapter is not computed as PEFT and transformers "
            "compute it, so nothing is recorded; please report its architecture and adapter"
        )
    return found


@torch.no_grad()
def fidelity(engine: Engine, sequences: Sequence[Sequence[int]], exact_copy: bool = True) -> Fidelity:
    """Compare the engine with the plain forward pass on token sequences.

    Args:
        exact_copy: also with an fp32 copy of the model, where there is room for it.
    """
    model, structure = engine.model, engine.structure
    expected, expected_states = _plain(model, structure.blocks, sequences)
    got, got_states = torch.empty_like(expected), torch.empty_like(expected_states)
    for batch in engine.plan(sequences):
        out = engine.run(batch)
        got[list(batch.rows)] = out.logits.float().cpu()
        got_states[:, list(batch.rows)] = out.recorded.float().cpu()
    dtype = next(model.parameters()).dtype
    against: list[float | None] = [None] * 4
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if (
        exact_copy
        and dtype != torch.float32
        and size <= LARGEST_COPY
        and all(p.is_floating_point() for p in model.parameters())
    ):
        exact = copy.deepcopy(model).float()
        full, full_states = _plain(exact, exact.get_submodule(structure.blocks_path), sequences)
        against = [
            relative_gap(*pair)
            for pair in (
                (got, full),
                (got_states, full_states),
                (expected, full),
                (expected_states, full_states),
            )
        ]
    return Fidelity(
        len(sequences),
        str(dtype).removeprefix("torch."),
        relative_gap(got, expected),
        relative_gap(got_states, expected_states),
        *against,
    )
