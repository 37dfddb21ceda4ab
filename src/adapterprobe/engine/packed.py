"""Attention over packed passes: a tree of shared prefixes in one sequence, without padding or repetition.

A pass holds `prefix, suffix, suffix, ..., prefix, suffix, ...` end to end as one row of tokens. Everything in a
decoder but attention works token by token and needs only the right position ids. Attention is done here, group
by group: every prefix attends to itself, every suffix to its prefix and itself, so that a prefix's keys and
values exist once however many rows continue it. transformers offers a place to plug this in, for nearly all of
its architectures: the attention interface. What may be seen at which distance (sliding windows, chunks) is asked
of the model's own mask function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from adapterprobe.engine.batches import Batch
from adapterprobe.models.attention import attention_configs, attention_replaced, register_attention

NAME = "adapterprobe_packed"

HARMLESS = {"position_ids", "cache_position", "sliding_window", "is_causal", "use_cache", "output_attentions",
            "output_hidden_states", "num_items_in_batch", "attention_mask", "past_key_values", "position_embeddings",
            "layer_idx", "return_dict", "output_router_logits"}  # fmt: skip
"""What models pass to attention that is either covered by masks and positions or no input of it."""


@dataclass(frozen=True)
class Span:
    """Where a group is in the packed row: its prefix at `start`, its suffix tokens from `start + prefix` to `stop`."""

    start: int
    prefix: int
    stop: int
    pad: torch.Tensor
    """rows x longest suffix: places (from `start + prefix` on) of each row's tokens, its last one repeated."""
    unpad: torch.Tensor | None
    """For each suffix token, its place in the flattened `pad`; None where all rows are equally long."""

    def on(self, device: torch.device) -> Span:
        """The same with its indices there."""
        return replace(self, pad=self.pad.to(device), unpad=None if self.unpad is None else self.unpad.to(device))


class Layout:
    """A batch as one packed row."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        ids: list[int] = []
        positions: list[int] = []
        answers: list[int] = []
        spans: list[Span] = []
        for group in batch.groups:
            start, prefix = len(ids), len(group.prefix)
            ids += group.prefix
            positions += range(prefix)
            lengths = [len(suffix) for suffix in group.suffixes]
            begins: list[int] = []
            for suffix in group.suffixes:
                begins.append(len(ids) - start - prefix)
                ids += suffix
                positions += range(prefix, prefix + len(suffix))
                answers.append(len(ids) - 1)
            longest = torch.arange(max(lengths))
            count = torch.tensor(lengths)
            pad = torch.tensor(begins)[:, None] + torch.minimum(longest[None], count[:, None] - 1)
            unpad = None
            if min(lengths) != max(lengths):
                unpad = (longest[None] < count[:, None]).flatten().nonzero().flatten()
            spans.append(Span(start, prefix, len(ids), pad, unpad))
        self.ids = torch.tensor([ids], device=device)
        self.positions = torch.tensor([positions], device=device)
        self.answers = torch.tensor(answers, device=device)
        self._spans = {torch.device("cpu"): spans}
        self.longest = max(positions) + 1

    def spans_on(self, device: torch.device) -> list[Span]:
        """The groups, with their indices on a device: a model's blocks may be on several."""
        if device not in self._spans:
            self._spans[device] = [span.on(device) for span in self._spans[torch.device("cpu")]]
        return self._spans[device]

    @cached_property
    def everything(self) -> torch.Tensor:
        """A padding mask that hides nothing (given, so that nobody guesses what the positions mean)."""
        return torch.ones_like(self.ids)


_layout: ContextVar[Layout] = ContextVar("packed layout")

KeysValues = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""By attention module (its `id`): keys and values of a packed pass, kv heads x tokens x size."""
_kept: ContextVar[KeysValues | None] = ContextVar("keys and values that are kept", default=None)


@contextlib.contextmanager
def keys_values_kept() -> Iterator[KeysValues]:
    """Within, packed passes leave the keys and values of every attention in what is given, to be continued from."""
    found: KeysValues = {}
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)


def _visible(*args, mask_function, device="cpu", **kwargs) -> torch.Tensor | None:
    """What a token at one position may see at another: 1 x 1 x positions x positions; None if all before it."""
    place = torch.arange(_layout.get().longest, device=device)
    nought = torch.zeros((), dtype=torch.long, device=device)
    seen = mask_function(nought, nought, place[:, None], place[None, :]).expand(len(place), len(place))
    causal = place[:, None] >= place[None, :]
    return None if torch.equal(seen, causal) else (seen & causal)[None, None]


def packed_attention(
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
    """Attention of every group of the layout: queries 1 x heads x tokens x size, output 1 x tokens x heads x size.

    Scores and their softmax are fp32 whatever the model's dtype.
    """
    unknown = [name for name, given in kwargs.items() if given is not None and name not in HARMLESS]
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")
    layout = _layout.get()
    if (kept := _kept.get()) is not None:
        kept[id(module)] = (key[0], value[0])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    seen = None if attention_mask is None else attention_mask[0, 0]
    plain = seen is None and softcap is None and not dropout and key.shape[-1] == value.shape[-1]
    if plain and query.device.type == "cpu" and not torch.is_grad_enabled():
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
        return _fused(q, k, v, layout, scale).unsqueeze(0), None
    # heads x tokens x size, fp32
    q, k, v = (
        tensor[0].to(torch.float32, memory_format=torch.contiguous_format) for tensor in (query * scale, key, value)
    )
    out = [
        part
        for span in layout.spans_on(q.device)
        for part in _group(
            q[:, span.start : span.stop],
            k[:, span.start : span.stop],
            v[:, span.start : span.stop],
            span,
            seen,
            softcap,
            dropout,
            module.training,
        )
    ]
    return torch.cat(out, 1).transpose(0, 1).unsqueeze(0).to(query.dtype).contiguous(), None


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
    """The same by the CPU's fused kernel, which gives the log-sum-exp of its scores beside its output: attention
    to prefix and suffix is worked out apart and put together by these (Milakov & Gimelshein 2018, section 3.1).

    Takes and gives tokens x heads x size: as they lie in memory, so that little is copied.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    share = q.shape[1] // k.shape[1]
    out = torch.empty_like(q)

    def attend(queries, keys, values, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (rows x tokens x heads x size) and log-sum-exps (rows x tokens x heads) of rows x tokens x heads x size."""
        keys, values = (t.repeat_interleave(share, 2) if share > 1 else t for t in (keys, values))
        found, weight = kernel(*(t.transpose(1, 2) for t in (queries, keys, values)), 0.0, causal, scale=scale)
        return found.transpose(1, 2), weight.transpose(1, 2)

    for span in layout.spans_on(q.device):
        head = slice(span.start, span.start + span.prefix)
        tail = slice(head.stop, span.stop)
        rows, longest = span.pad.shape
        if span.unpad is None:
            own = [t[tail].unflatten(0, (rows, longest)) for t in (q, k, v)]
        else:
            own = [t[tail].index_select(0, span.pad.flatten()).unflatten(0, (rows, longest)) for t in (q, k, v)]
        found, weight = (t.flatten(0, 1) for t in attend(own[0], own[1], own[2], True))
        if span.unpad is not None:
            found, weight = (t.index_select(0, span.unpad) for t in (found, weight))
        if span.prefix:
            out[head] = attend(q[None, head], k[None, head], v[None, head], True)[0][0]
            above, above_weight = attend(q[None, tail], k[None, head], v[None, head], False)
            part = torch.sigmoid(above_weight[0] - weight).unsqueeze(-1).to(found.dtype)
            torch.lerp(found, above[0], part, out=out[tail])
        else:
            out[tail] = found
    return out


def _group(q, k, v, span: Span, seen, softcap, dropout: float, training: bool) -> list[torch.Tensor]:
    """Outputs of the prefix's tokens and of the suffixes' tokens: heads x tokens x size each."""

    def weights(scores: torch.Tensor) -> torch.Tensor:
        found = torch.softmax(scores, -1)
        return torch.nn.functional.dropout(found, dropout, training) if dropout else found

    def capped(scores: torch.Tensor) -> torch.Tensor:
        return scores if softcap is None else torch.tanh(scores / softcap) * softcap

    def hidden(rows: slice, columns: slice, n_rows: int, n_columns: int) -> torch.Tensor:
        """True where a key may not be seen."""
        if seen is not None:
            return ~seen[rows, columns]
        return torch.ones(n_rows, n_columns, dtype=torch.bool, device=q.device).triu(1)

    heads, _, size = q.shape
    kv_heads, _, value_size = v.shape
    share = heads // kv_heads
    p = span.prefix
    out = []
    if p:
        mask = hidden(slice(p), slice(p), p, p)
        scores = capped(q[:, :p].reshape(kv_heads, share * p, size) @ k[:, :p].transpose(1, 2))
        scores = scores.view(kv_heads, share, p, p).masked_fill(mask, float("-inf"))
        found = weights(scores).view(kv_heads, share * p, p) @ v[:, :p]
        out.append(found.view(heads, p, value_size))
    rows, longest = span.pad.shape
    own = slice(p, p + longest)
    places = span.pad.flatten()
    # kv heads x rows x (heads of a key * tokens) x size
    queries = q[:, p:].index_select(1, places).view(kv_heads, share, rows, longest, size)
    queries = queries.transpose(1, 2).reshape(kv_heads, rows, share * longest, size)
    keys = k[:, p:].index_select(1, places).view(kv_heads, rows, longest, size)
    values = v[:, p:].index_select(1, places).view(kv_heads, rows, longest, value_size)
    scores = capped(queries @ keys.transpose(2, 3)).view(kv_heads, rows, share, longest, longest)
    scores = scores.masked_fill(hidden(own, own, longest, longest), float("-inf"))
    if p:
        above = capped(queries.reshape(kv_heads, -1, size) @ k[:, :p].transpose(1, 2))
        above = above.view(kv_heads, rows, share, longest, p)
        if seen is not None:
            above = above.masked_fill(hidden(own, slice(p), longest, p), float("-inf"))
        both = weights(torch.cat([above, scores], -1))
        found = (both[..., :p].reshape(kv_heads, -1, p) @ v[:, :p]).view(kv_heads, rows, share * longest, value_size)
        found = found + both[..., p:].reshape(kv_heads, rows, share * longest, longest) @ values
    else:
        found = weights(scores).view(kv_heads, rows, share * longest, longest) @ values
    found = found.view(kv_heads, rows, share, longest, value_size).transpose(1, 2)
    found = found.reshape(heads, rows * longest, value_size)
    out.append(found if span.unpad is None else found.index_select(1, span.unpad))
    return out


@contextlib.contextmanager
def packed(configs: Sequence, layout: Layout) -> Iterator[None]:
    """Within, the attention of `configs` (see `packable_configs`) is `packed_attention` over `layout`."""
    token = _layout.set(layout)
    try:
        with attention_replaced(configs, NAME):
            yield
    finally:
        _layout.reset(token)


def packable_configs(model: nn.Module) -> list:
    """The configurations by which a model's modules choose their attention; ours can be chosen from then on."""
    register_attention(NAME, packed_attention, _visible)
    return attention_configs(model)
