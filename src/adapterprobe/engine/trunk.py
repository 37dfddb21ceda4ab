"""The layers below the adapter, run once.

An adapter on blocks `start` and above leaves the residual stream below as it is, so that stream is computed
once for all tokens and lent to every later pass: adapter-on extraction, every step and every epoch of
training. Passes that start from it skip the blocks below: these only note in the key-value cache how many
tokens have gone by, since positions and masks are worked out from that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from adapterprobe.engine.batches import Batch
from adapterprobe.models.blocks import Structure
from adapterprobe.progress import bar


class _Enough(Exception):
    """Raised to leave a forward pass at the first block that is not wanted."""


class Trunk:
    """States that enter block `start`, for every token of known sequences.

    Args:
        start: the first block that differs between passes; it and those above are run by every pass.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._states: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        self._tuple_output = False

    def collect(self, engine, batches: Sequence[Batch], what: str = "layers below the adapter") -> None:
        """Run the blocks below `start` over planned batches and keep what comes out."""
        blocks = engine.structure.blocks
        held: list[torch.Tensor] = []

        def stop(module, args, kwargs):
            held.append((args[0] if args else kwargs["hidden_states"]).detach())
            raise _Enough

        def look(module, args, output):
            self._tuple_output = isinstance(output, tuple)

        handles = [
            blocks[self.start].register_forward_pre_hook(stop, with_kwargs=True),
            blocks[self.start - 1].register_forward_hook(look),
        ]
        prefixes: dict[tuple[int, ...], torch.Tensor] = {}
        try:
            with torch.no_grad(), bar(sum(len(b.rows) for b in batches), what) as progress:
                for batch in batches:
                    cache = None
                    if batch.prefixes:
                        cache = engine.new_cache()
                        with contextlib.suppress(_Enough):
                            engine.forward(torch.tensor(batch.prefixes), cache)
                        prefixes.update(zip(batch.prefixes, held.pop()))
                        cache = engine.lend(cache, batch.owners)
                    ids, lengths = engine.padded(batch)
                    with contextlib.suppress(_Enough):
                        engine.forward(ids, cache)
                    for tokens, length, states in zip(full_ids(batch), lengths, held.pop()):
                        prefix = tokens[: len(tokens) - length]
                        empty = states.new_empty(0, states.shape[-1])
                        self._states[tokens] = (prefixes.get(prefix, empty), states[:length].clone())
                    progress.update(len(batch.rows))
        finally:
            for handle in handles:
                handle.remove()

    def knows(self, batch: Batch) -> bool:
        return all(tokens in self._states for tokens in full_ids(batch))

    def _span(self, tokens: tuple[int, ...], low: int, high: int) -> torch.Tensor:
        prefix, own = self._states[tokens]
        return torch.cat([prefix[low:high], own[max(0, low - len(prefix)) : max(0, high - len(prefix))]])

    def prefixes(self, batch: Batch) -> torch.Tensor:
        """States of the batch's prefixes: prefixes x tokens x width."""
        rows = full_ids(batch)
        length = len(batch.prefixes[0])
        return torch.stack([self._span(rows[batch.owners.index(k)], 0, length) for k in range(len(batch.prefixes))])

    def suffixes(self, batch: Batch) -> torch.Tensor:
        """States of the batch's suffixes, zeros where padded: rows x tokens x width."""
        spans = [
            self._span(tokens, len(tokens) - len(suffix), len(tokens))
            for tokens, suffix in zip(full_ids(batch), batch.suffixes)
        ]
        return torch.nn.utils.rnn.pad_sequence(spans, batch_first=True)

    @contextlib.contextmanager
    def resumed(self, structure: Structure, states: torch.Tensor) -> Iterator[None]:
        """Within, a forward pass goes on from `states` at block `start`."""
        from transformers.cache_utils import Cache

        def passing(index: int):
            def forward(hidden_states, *args, **kwargs):
                cache = next((v for v in (*args, *kwargs.values()) if isinstance(v, Cache)), None)
                if cache is not None:
                    nothing = hidden_states.new_zeros(*hidden_states.shape[:1], 1, hidden_states.shape[1], 1)
                    cache.update(nothing, nothing, index)
                return (hidden_states,) if self._tuple_output else hidden_states

            return forward

        def enter(module, args, kwargs):
            if args:
                return (states, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": states}

        below = structure.blocks[: self.start]
        before = [block.__dict__.get("forward") for block in below]
        handle = structure.blocks[self.start].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            for index, block in enumerate(below):
                block.forward = passing(index)
            yield
        finally:
            handle.remove()
            for block, own in zip(below, before):
                if own is None:
                    block.__dict__.pop("forward", None)
                else:
                    block.forward = own


def full_ids(batch: Batch) -> list[tuple[int, ...]]:
    """All token ids of each row."""
    if not batch.prefixes:
        return list(batch.suffixes)
    return [batch.prefixes[owner] + suffix for owner, suffix in zip(batch.owners, batch.suffixes)]
