"""Attention for writing on: rows that continue one shared prefix, a token at a time.

The keys and values of the prefix exist once, however many rows continue it; each row has its own behind them, in a buffer of fixed
size, so that nothing is copied from step to step. Scores and their softmax are fp32, as in a packed pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn

from adapterprobe.engine.packed import HARMLESS, KeysValues
from adapterprobe.models.attention import attention_configs, attention_replaced, register_attention

NAME = "adapterprobe_decoding"


@dataclass
class RowCache:
    """Keys and values of rows that continue one prefix.

    `shared` and `own` by attention module: (keys, values) of kv heads x prefix x size, and of rows x kv heads x slots x size.
    """

    prefix: int
    lengths: torch.Tensor
    """Tokens that each row has behind the prefix."""
    shared: KeysValues
    own: KeysValues
    used: int = 0
    """Slots that some row needs with its next token (kept as a number: asking the device for it would wait for it)."""

    def __post_init__(self) -> None:
        self.used = int(self.lengths.max()) + 1

    @staticmethod
    def of(
        kept: KeysValues,
        prefix: int,
        suffixes: Sequence[tuple[int, int]],
        rows: Sequence[int],
        room: int,
        device: torch.device,
    ) -> RowCache:
        """The cache of rows out of a packed pass over one group.

        Args:
            kept: what the pass left (see `keys_values_kept`); its first `prefix` tokens are shared.
            suffixes: where each prompt's own tokens lie in the pass (from, to). rows: the prompt of every row.
            room: tokens that each row may add.
            device: where tokens go in.
        """
        lengths = [stop - start for start, stop in suffixes]
        slots = max(lengths) + room
        shared, own = {}, {}
        for module, pair in kept.items():
            buffers = []
            for tensor in pair:
                buffer = tensor.new_zeros(len(rows), tensor.shape[0], slots, tensor.shape[2])
                for row, prompt in enumerate(rows):
                    start, stop = suffixes[prompt]
                    buffer[row, :, : stop - start] = tensor[:, start:stop]
                buffers.append(buffer)
            own[module] = (buffers[0], buffers[1])
            shared[module] = (pair[0][:, :prefix].contiguous(), pair[1][:, :prefix].contiguous())
        return RowCache(prefix, torch.tensor([lengths[p] for p in rows], device=device), shared, own)

    @property
    def positions(self) -> torch.Tensor:
        """Of each row's next token: rows."""
        return self.lengths + self.prefix

    def advance(self) -> None:
        """Every row has one token more."""
        self.lengths = self.lengths + 1
        self.used += 1

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows."""
        self.lengths = self.lengths[rows]
        self.used = int(self.lengths.max()) + 1
        self.own = {
            module: (keys[rows.to(keys.device)], values[rows.to(keys.device)])
            for module, (keys, values) in self.own.items()
        }


_cache: ContextVar[RowCache] = ContextVar("cache of the rows that are written on")


def _visible(*args, mask_function, device="cpu", **kwargs) -> torch.Tensor | None:
    """What a token at one position may see at another: 1 x 1 x positions x positions; None if all before it."""
    place = torch.arange(_cache.get().prefix + _cache.get().used, device=device)
    nought = torch.zeros((), dtype=torch.long, device=device)
    seen = mask_function(nought, nought, place[:, None], place[None, :]).expand(len(place), len(place))
    causal = place[:, None] >= place[None, :]
    return None if torch.equal(seen, causal) else (seen & causal)[None, None]


def decoding_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention of each row's new token to the prefix, to what the row has behind it, and to itself.

    Queries rows x heads x 1 x size, output rows x 1 x heads x size.
    """
    unknown = [name for name, given in kwargs.items() if given is not None and name not in HARMLESS]
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    cache = _cache.get()
    rows, heads, _, size = query.shape
    kv_heads = key.shape[1]
    every = torch.arange(rows, device=query.device)
    keys, values = cache.own[id(module)]
    # A model's blocks may be on several devices.
    lengths = cache.lengths.to(query.device)
    keys[every, :, lengths] = key[:, :, 0].to(keys.dtype)
    values[every, :, lengths] = value[:, :, 0].to(values.dtype)
    used = cache.used
    q = (query * (size**-0.5 if scaling is None else scaling)).float().view(rows, kv_heads, heads // kv_heads, size)
    own = q @ keys[:, :, :used].float().transpose(2, 3)
    shared_keys, shared_values = cache.shared[id(module)]
    # kv heads x (rows * heads of a key) x size: one product for all rows.
    together = q.transpose(0, 1).reshape(kv_heads, -1, size)
    above = together @ shared_keys.float().transpose(1, 2)
    above = above.view(kv_heads, rows, heads // kv_heads, cache.prefix).transpose(0, 1)
    scores = torch.cat([above, own], -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(_hidden(cache.prefix, lengths, used, attention_mask)[:, None, None], float("-inf"))
    weights = torch.softmax(scores, -1)
    if dropout and module.training:
        weights = torch.nn.functional.dropout(weights, dropout)
    size = shared_values.shape[-1]
    before = (
        weights[..., : cache.prefix].transpose(0, 1).reshape(kv_heads, rows * (heads // kv_heads), cache.prefix)
        @ shared_values.float()
    )
    before = before.view(kv_heads, rows, heads // kv_heads, size).transpose(0, 1)
    out = before + weights[..., cache.prefix :] @ values[:, :, :used].float()
    return out.reshape(rows, 1, heads, size).to(query.dtype), None


def _hidden(prefix: int, lengths: torch.Tensor, used: int, mask: torch.Tensor | None) -> torch.Tensor:
    """rows x (prefix + used): True where a row's new token may not look."""
    slots = torch.arange(used, device=lengths.device)
    own = slots[None] > lengths[:, None]
    before = own.new_zeros(len(own), prefix)
    hidden = torch.cat([before, own], 1)
    if mask is None:
        return hidden
    return hidden | ~mask[0, 0][lengths + prefix][:, : prefix + used]


@contextlib.contextmanager
def decoding(configs: Sequence, cache: RowCache) -> Iterator[None]:
    """Within, the attention of `configs` (see `decodable_configs`) is `decoding_attention` over `cache`."""
    token = _cache.set(cache)
    try:
        with attention_replaced(configs, NAME):
            yield
    finally:
        _cache.reset(token)


def decodable_configs(model: nn.Module) -> list:
    """The configurations by which a model's modules choose their attention; ours can be chosen from then on."""
    register_attention(NAME, decoding_attention, _visible)
    return attention_configs(model)
