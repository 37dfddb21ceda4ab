"""A linear head on a middle layer's residual stream, trained together with the adapter below it: objective `detect`.

The published form of an adapter as a probe (Obeso et al. 2025, "Real-Time Detection of Hallucinated Entities in Long-Form
Generation", arXiv:2509.03531): one logit a token, the label's cross-entropy over the tokens that are read, and a KL that keeps the model's text
as it was. Here every row counts once, however long it is, and the score of a row is the head's mean logit over what is read of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import expit
from torch import nn

from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.models.layers import parse_blocks
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.token_labels import token_labels
from adapterprobe.readout import Span

HEAD = "head.safetensors"
"""The head's file, beside the adapter's own."""


class DetectHead(nn.Module):
    """One logit a token, of states scaled by what the base model's are like.

    Args:
        layer: the state that it reads, 1 .. n_layers - 1.
        width: of the residual stream.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layer: int, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, states: Float[torch.Tensor, "tokens width"]) -> Float[torch.Tensor, " tokens"]:
        """Logits of tokens x width."""
        return ((states.float() - self.mean) / self.scale) @ self.weight + self.bias

    def unscaled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight, bias) for states as they are, in double precision: the layer's outlying features are large."""
        weight = self.weight.detach().double() / self.scale.double()
        return weight, self.bias.detach().double() - weight @ self.mean.double()


@dataclass(frozen=True)
class SavedHead:
    """A trained head: `weight` (width) and `bias` for the state after `layer` blocks, adapter on."""

    layer: int
    weight: np.ndarray
    bias: float

    def probability(self, states: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, " rows"]:
        """Probability of label 1 by row of rows x width."""
        return expit(states.astype(np.float64) @ self.weight + self.bias)


def head_layer(config: AdapterConfig, n_layers: int) -> int | None:
    """The state that the head reads: as configured, else the middle one. None for objectives without a head.

    Raises:
        ConfigError: there is no such state.
    """
    if config.objective != "detect":
        return None
    layer = -(-n_layers // 2) if config.head_layer is None else config.head_layer
    if not 1 <= layer < n_layers:
        raise ConfigError(
            f"adapter.head_layer={layer}: this model's head may read the states 1 to {n_layers - 1} (the last block's output is not "
            "there before the model's own head)"
        )
    return layer


def adapted_blocks(config: AdapterConfig, n_layers: int) -> list[int]:
    """Blocks that are adapted, 0 .. n_layers - 1; with a head, `all` and shares (33%-83%) end below it.

    Raises:
        ConfigError: no such block, or one that the head does not see.
    """
    head = head_layer(config, n_layers)
    blocks = parse_blocks(config.layers, n_layers)
    if head is None:
        return blocks
    if config.layers == "all" or "%" in config.layers:
        blocks = [block for block in blocks if block < head] or blocks
    if blocks[-1] >= head:
        raise ConfigError(
            f"adapter.layers={config.layers} adapts block {blocks[-1]}, which the head at state {head} does not see (state {head} is "
            f"block {head - 1}'s output); adapt blocks up to {head - 1}, or set adapter.head_layer"
        )
    return blocks


def head_of(wrapped: nn.Module) -> DetectHead | None:
    """The head that is trained with an adapter, if there is one."""
    return getattr(wrapped, "detect_head", None)


def attach_head(wrapped: nn.Module, engine: Engine, train: Encoded, config: AdapterConfig) -> DetectHead | None:
    """Put a head that says nothing yet beside the adapter, so that what trains the one trains the other.

    Args:
        train: prompts whose states (as the model now is) tell how each feature is scaled.
    """
    layer = head_layer(config, engine.structure.n_layers)
    if layer is None:
        return None
    head = DetectHead(layer, engine.structure.width).to(engine.device)
    head.mean, head.scale = _scales(engine, train, layer)
    wrapped.detect_head = head
    return head


def detach_head(wrapped: nn.Module) -> DetectHead | None:
    """Take it away again."""
    head = head_of(wrapped)
    if head is not None:
        del wrapped.detect_head
    return head


@torch.no_grad()
def _scales(engine: Engine, encoded: Encoded, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each feature over the tokens that are read."""
    spans = head_spans(encoded)
    total = torch.zeros(2, engine.structure.width, dtype=torch.float64, device=engine.device)
    count = 0
    for batch in engine.plan(encoded.ids):
        with engine.reading_tokens(batch, [layer], spans) as (states, _):
            tokens = states[layer].double()
            total += torch.stack([tokens.sum(0), (tokens**2).sum(0)])
            count += len(tokens)
    mean = total[0] / count
    deviation = (total[1] / count - mean**2).clamp_min(0).sqrt()
    # A feature that never moves says nothing; it must not be blown up either.
    return mean.float(), deviation.clamp_min(1e-3 * deviation.mean().clamp_min(1e-6)).float()


def head_spans(encoded: Encoded) -> tuple[Span, ...]:
    """Tokens of every prompt that the head reads: those of the reply or statement, or the answer position."""
    if not encoded.reads:
        return tuple((len(ids) - 1, len(ids)) for ids in encoded.ids)
    read = encoded.reads[0]
    if read.pool == "last":
        return tuple((stop - 1, stop) for _, stop in read.spans)
    if read.pool == "first":
        return tuple((start, start + 1) for start, _ in read.spans)
    return read.spans


def head_labels(encoded: Encoded, rows: Sequence[int], device: torch.device) -> torch.Tensor:
    """Labels of the tokens that the head reads of some rows, row after row: the row's, or where all tokens are read and false ones are
    marked, theirs."""
    some = encoded.subset(rows)
    spans = head_spans(some)
    if some.reads and some.reads[0].pool == "mean":
        labels = np.concatenate(token_labels(some, spans))
    else:
        labels = np.repeat([int(p.example.truth) for p in some.prompts], [stop - start for start, stop in spans])
    return torch.tensor(labels, device=device)


def head_losses(
    head: DetectHead,
    states: Float[torch.Tensor, "tokens width"],
    lengths: Sequence[int],
    labels: Int[torch.Tensor, " tokens"],
    weights: Float[torch.Tensor, " rows"],
) -> tuple[Float[torch.Tensor, " rows"], Float[torch.Tensor, " rows"]]:
    """(each row's cross-entropy, the mean over its tokens, times its weight; each row's mean logit).

    Args:
        states: tokens x width, row after row; `lengths`: tokens of each row.
        labels: of the tokens, 0 or 1; `weights`: of the rows.
    """
    counts = torch.tensor(lengths, device=states.device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=states.device), counts)
    logits = head(states)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    sums = torch.zeros(2, len(lengths), device=states.device).index_add(1, owner, torch.stack([losses, logits]))
    means = sums / counts
    return means[0] * weights, means[1]


def save_head(head: DetectHead, folder: Path) -> None:
    """Write the head beside its adapter."""
    weight, bias = head.unscaled()
    tensors = {"weight": weight.cpu().contiguous(), "bias": bias.cpu().contiguous()}
    save_file(tensors, folder / HEAD, metadata={"format": "pt", "layer": str(head.layer)})


def load_head(folder: Path) -> SavedHead | None:
    """The head of an adapter's folder; None where it has none.

    Raises:
        ModelError: its file is damaged.
    """
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            layer = int(file.metadata()["layer"])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
    except Exception as error:
        raise ModelError(f"the head in {folder} cannot be read ({str(error)[:160]}); take it from a copy") from error
    if weight.ndim != 1 or bias.shape != (1,) or not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError(
            f"the head in {folder} holds {weight.shape} and {bias.shape}, expected a weight for each feature and a bias"
        )
    return SavedHead(layer, weight.astype(np.float64), float(bias[0]))
