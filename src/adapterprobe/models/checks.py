"""Is this model what everything here takes it for? Asked once at loading, by its own answers rather than by its name.

Weights that are missing are random numbers; a model that looks ahead has no answer position; blocks found in the wrong place, or a
residual stream that is more than one, give states that mean something else. None of that would show in a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adapterprobe.errors import ModelError
from adapterprobe.models.blocks import Structure
from adapterprobe.models.placement import input_device
from adapterprobe.models.quantize import tokens_apart
from adapterprobe.progress import say
from adapterprobe.terminal import reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 5
TEXT = "The quick brown fox jumps over the lazy dog and runs away."
LEAK = 1e-3
"""How far an earlier token's state may move where a later token changes, against that one's own."""


def check_weights(shown: str, info: Mapping[str, Any]) -> None:
    """Whether a checkpoint had all weights of the model (those that are tied to others need not stand there twice).

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` gives.

    Raises:
        ModelError: weights are missing or of another shape: they would be random numbers.
    """
    missing = sorted(map(str, info.get("missing_keys") or ()))
    mismatched = sorted(str(entry[0]) for entry in info.get("mismatched_keys") or ())
    if missing or mismatched:
        lacking = [*missing, *mismatched]
        raise ModelError(
            f"the model '{shown}' lacks {len(lacking)} of its weights ({_some(lacking)}), which would be random numbers; it may be an "
            "encoder without its head, or its weights have other names: save it whole, as the class for causal language models"
        )
    unexpected = sorted(map(str, info.get("unexpected_keys") or ()))
    if unexpected:
        say(f"{shown} has {len(unexpected)} weights that its class does not use ({_some(unexpected)})")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


@torch.no_grad()
def check_behaviour(shown: str, model: PreTrainedModel, structure: Structure, tokenizer) -> None:
    """Whether the model looks at what came before alone, and its states are where they are looked for.

    Two passes over a dozen tokens. States after every block, as hooks see them, are held against `output_hidden_states`, whose last
    entry comes after the final norm; then the last token is changed, and no earlier state may move.

    Raises:
        ModelError: which of these does not hold, and for which layer.
    """
    rows = model.get_input_embeddings().get_parameter("weight").shape[0]
    ids = [i for i in tokenizer(TEXT, add_special_tokens=False).input_ids if i < rows][:16]
    if len(set(ids)) < 4:
        ids = [int(i) for i in torch.linspace(1, rows - 1, 8)]
    other = [*ids[:-1], next(i for i in (ids[0], ids[1]) if i != ids[-1])]
    device = input_device(model)
    first, reported, logits = _pass(shown, model, structure, torch.tensor([ids], device=device))
    for layer, states in enumerate(first):
        expected = (1, len(ids), structure.width)
        if tuple(states.shape) != expected:
            raise ModelError(
                f"the model '{shown}' has states of shape {tuple(states.shape)} after {layer} blocks, expected {expected} (rows x "
                "tokens x width): it has several residual streams, or its blocks are not where they were looked for; only decoders "
                "with one residual stream can be read"
            )
    near = _tolerance(model, exact=1e-3)
    if reported is not None:
        _compare_with_reported(shown, model, structure, first, reported, near)
    with tokens_apart(model):
        if getattr(model, "is_quantized", False):
            first, _, logits = _pass(shown, model, structure, torch.tensor([ids], device=device))
        second, _, changed = _pass(shown, model, structure, torch.tensor([other], device=device))
    # Held against what the last token's own change does there: a weak look ahead is one, too. A causal model's do not move at all.
    pairs = [(f"the state after {layer} blocks", a, b) for layer, (a, b) in enumerate(zip(first, second, strict=True))]
    for what, a, b in [*pairs, ("the logits", logits, changed)]:
        change = (b.float() - a.float()).abs()
        own = float(change[:, -1].max().clamp(min=1e-12))
        moved = float(change[:, :-1].max()) / own
        if not moved <= LEAK:
            raise ModelError(
                f"the model '{shown}' looks ahead: with another last token, {what} of earlier tokens changes by {moved:.1e} of what the "
                "last one's own does; only causal (decoder-only) language models can be read, and this is an encoder, or is set up as one"
            )


def _pass(shown: str, model: nn.Module, structure: Structure, ids: torch.Tensor):
    """(states that enter the first block and leave each, what the model reports of them or None, logits)."""
    kept: dict[int, torch.Tensor] = {}

    def entering(module, args, kwargs):
        kept[0] = args[0] if args else kwargs["hidden_states"]

    def leaving(index: int):
        def hook(module, args, output):
            kept[index] = output[0] if isinstance(output, (tuple, list)) else output

        return hook

    handles = [structure.blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    handles += [block.register_forward_hook(leaving(i)) for i, block in enumerate(structure.blocks, 1)]
    try:
        out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    except Exception as error:
        reason = reason_of(error)
        raise ModelError(
            f"the model '{shown}' ({type(model).__name__}) cannot be run on text alone ({reason}); only causal (decoder-only) language "
            "models can be read"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    lacking = [index for index in range(structure.n_layers + 1) if index not in kept]
    if lacking:
        raise ModelError(
            f"the model '{shown}' does not run its blocks {structure.blocks_path} on text (nothing passed block {max(0, lacking[0] - 1)}); "
            "they may belong to another part of it, such as a vision tower"
        )
    return [kept[index] for index in sorted(kept)], getattr(out, "hidden_states", None), out.logits


def _norms_beside(model: nn.Module, structure: Structure) -> list[nn.Module]:
    """Norms that stand beside the blocks: one of them is the final one."""
    parent = structure.blocks_path.rpartition(".")[0]
    beside = (model.get_submodule(parent) if parent else model).children()
    return [module for module in beside if module is structure.final_norm or "norm" in type(module).__name__.lower()]


def _compare_with_reported(
    shown: str, model: nn.Module, structure: Structure, states: list[torch.Tensor], reported, near: float
) -> None:
    expected = list(reported)
    if len(expected) != len(states):
        raise ModelError(
            f"the model '{shown}' reports {len(expected)} hidden states where {len(states)} were expected (its embedding's, and one "
            f"after each of {structure.n_layers} blocks); its blocks are not where they were looked for"
        )
    for layer, (mine, theirs) in enumerate(zip(states, expected, strict=True)):
        gaps = [_gap(mine, theirs)]
        if layer == structure.n_layers:
            # After the final norm, wherever in the decoder that stands, and whether or not it has weights.
            gaps += [_gap(norm(mine), theirs) for norm in _norms_beside(model, structure)]
        if not min(gaps) <= near:
            raise ModelError(
                f"the model '{shown}' reports another state after {layer} blocks than the one that leaves {structure.blocks_path} there "
                f"(apart by {min(gaps):.1e} of its scale); its blocks are not where they were looked for"
            )


def _tolerance(model: nn.Module, exact: float) -> float:
    if getattr(model, "is_quantized", False):
        return 0.1
    return exact if next(model.parameters()).dtype == torch.float32 else 0.03


def _gap(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to scale; infinite where shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    # A model may be spread over several devices.
    got, expected = got.float().cpu(), expected.float().cpu()
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
