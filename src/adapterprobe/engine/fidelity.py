"""How far the engine is from the plain forward pass, on a user's own model, prompts and dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from adapterprobe.engine.forward import Engine, relative_gap

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
def _plain(model: nn.Module, last_block: nn.Module, sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and states (layers x rows x width, before the final norm) of rows run one by one, unpadded."""
    logits, states = [], []
    for ids in sequences:
        last: list[torch.Tensor] = []
        handle = last_block.register_forward_hook(
            lambda module, args, out, last=last: last.append(out[0] if isinstance(out, (tuple, list)) else out)
        )
        try:
            tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
            out = model(input_ids=tokens, output_hidden_states=True, use_cache=False)
        finally:
            handle.remove()
        logits.append(out.logits[0, -1].float())
        states.append(torch.stack([h[0, -1].float() for h in (*out.hidden_states[:-1], last[0])]))
    return torch.stack(logits), torch.stack(states, 1)


@torch.no_grad()
def fidelity(engine: Engine, sequences: Sequence[Sequence[int]]) -> Fidelity:
    """Compare the engine with the plain forward pass on token sequences."""
    model, structure = engine.model, engine.structure
    expected, expected_states = _plain(model, structure.blocks[-1], sequences)
    got, got_states = torch.empty_like(expected), torch.empty_like(expected_states)
    for batch in engine.plan(sequences):
        out = engine.run(batch)
        got[list(batch.rows)] = out.logits.float()
        got_states[:, list(batch.rows)] = out.states.float()
    dtype = next(model.parameters()).dtype
    against: list[float | None] = [None] * 4
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if dtype != torch.float32 and size <= LARGEST_COPY and all(p.is_floating_point() for p in model.parameters()):
        exact = copy.deepcopy(model).float()
        full, full_states = _plain(exact, exact.get_submodule(structure.blocks_path)[-1], sequences)
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
