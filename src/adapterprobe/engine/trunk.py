"""The layers below the adapter, run once.

An adapter on blocks `start` and above leaves the residual stream below as it is, so that stream is computed
once for all tokens and lent to every later pass: adapter-on extraction, every step and every epoch of training.
Passes that start from it skip the blocks below.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from adapterprobe.cache import reserve, scratch_folder
from adapterprobe.engine.batches import Batch, Place
from adapterprobe.engine.memory import in_parts
from adapterprobe.models.blocks import Structure
from adapterprobe.progress import bar

SLACK = 1.25
"""Of a file, by how much it is larger than what is planned: batches that are halved where memory runs out keep their prefix twice."""


class Enough(Exception):
    """Raised to leave a forward pass at the first block that is not wanted."""


class LowerBlockCache:
    """States that enter block `start`, for every token of planned batches.

    Args:
        start: the first block that differs between passes; it and those above are run by every pass.
        engine: what runs the blocks below.
        batches: all that will ever be kept.
        limit: bytes beyond which the states are kept on disk (in a file of the cache folder that is gone with
            this object) instead of in memory.
    """

    def __init__(self, start: int, engine, batches: Sequence[Batch], limit: int = 2 << 30) -> None:
        self.start, self.batches = start, list(batches)
        shape = (sum(batch.tokens for batch in self.batches), engine.structure.width)
        dtype = next(engine.model.parameters()).dtype
        self.on_disk = shape[0] * shape[1] * dtype.itemsize > limit
        if self.on_disk:
            shape = (int(SLACK * shape[0]), shape[1])
            folder = scratch_folder()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".trunk") as file:
                reserve(Path(file.name), shape[0] * shape[1] * dtype.itemsize)
                flat = torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=dtype)
            self._states = flat.view(shape)
        else:
            self._states = torch.empty(shape, dtype=dtype)
        self._filled = 0
        self._places: dict[tuple[int, ...], Place] = {}
        """Of each sequence."""
        self._tuple_output = False

    def collect(self, engine, what: str = "layers below the adapter") -> None:
        """Run the blocks below `start` over what is still unknown and keep what comes out."""
        missing = [batch for batch in self.batches if not self.knows(batch)]
        with torch.no_grad(), bar(sum(len(b.rows) for b in missing), what) as progress:
            for batch in missing:
                list(in_parts(functools.partial(self._fill, engine), batch))
                progress.update(len(batch.rows))

    def _fill(self, engine, batch: Batch) -> None:
        leaving = contextlib.suppress(Enough)
        with leaving, self.listening(engine, batch, stop=True), engine.laid_out(batch) as (inputs, _):
            engine.model(**inputs, use_cache=False)

    @contextlib.contextmanager
    def listening(self, engine, batch: Batch, stop: bool = False) -> Iterator[None]:
        """Within, a pass over `batch` leaves its states at block `start` here (and ends there, if `stop`)."""
        blocks = engine.structure.blocks

        def enter(module, args, kwargs):
            self._keep(batch, (args[0] if args else kwargs["hidden_states"]).detach(), engine.share)
            if stop:
                raise Enough

        def look(module, args, output):
            self._tuple_output = isinstance(output, tuple)

        handles = [
            blocks[self.start].register_forward_pre_hook(enter, with_kwargs=True),
            blocks[self.start - 1].register_forward_hook(look),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, batch: Batch, states: torch.Tensor, packed: bool) -> None:
        if self.knows(batch):
            return
        lacking = self._filled + (batch.tokens if packed else sum(map(len, batch.sequences))) - len(self._states)
        if lacking > 0:
            if self.on_disk:
                # What is not kept is run whole by whoever needs it.
                return
            with torch.inference_mode(False):
                # Made in inference mode it could be written to in no other.
                size = len(self._states) + max(lacking, len(self._states) // 4)
                larger = torch.empty(size, self._states.shape[1], dtype=self._states.dtype)
                larger[: self._filled] = self._states[: self._filled]
                self._states = larger
        if not packed:
            for tokens, row in zip(batch.sequences, states, strict=True):
                place = self._filled
                self._states[place : place + len(tokens)] = row[: len(tokens)]
                self._places[tokens] = Place(place, 0, place)
                self._filled += len(tokens)
            return
        self._states[self._filled : self._filled + batch.tokens] = states[0]
        for tokens, place in zip(batch.sequences, batch.packed_places(), strict=True):
            self._places[tokens] = place.moved(self._filled)
        self._filled += batch.tokens

    def knows(self, batch: Batch) -> bool:
        return all(tokens in self._places for tokens in batch.sequences)

    @property
    def dtype(self) -> torch.dtype:
        return self._states.dtype

    def states_between(self, tokens: tuple[int, ...], start: int, stop: int) -> torch.Tensor:
        """States of the tokens from `start` to `stop` (exclusive) of a sequence that is known: tokens x width."""
        place = self._places[tokens]
        prefix, size, own = place.prefix, place.shared, place.own
        shared = self._states[prefix + min(start, size) : prefix + min(stop, size)]
        return torch.cat([shared, self._states[own + max(0, start - size) : own + max(0, stop - size)]])

    def entering(self, batch: Batch, packed: bool, device: torch.device) -> torch.Tensor:
        """What enters block `start`, laid out as the pass is: passes' rows x tokens x width."""
        if not packed:
            spans = [self.states_between(tokens, 0, len(tokens)) for tokens in batch.sequences]
            return torch.nn.utils.rnn.pad_sequence(spans, batch_first=True).to(device)
        spans = []
        for group in batch.groups:
            size = len(group.prefix)
            if size:
                spans.append(self.states_between(group.prefix + group.suffixes[0], 0, size))
            spans += [self.states_between(group.prefix + s, size, size + len(s)) for s in group.suffixes]
        return torch.cat(spans).unsqueeze(0).to(device)

    @contextlib.contextmanager
    def resumed(self, structure: Structure, batch: Batch, packed: bool, device: torch.device) -> Iterator[None]:
        """Within, a forward pass over `batch` goes on from the kept states at block `start`."""
        states = self.entering(batch, packed, device)

        def passing(hidden_states, *args, **kwargs):
            return (hidden_states,) if self._tuple_output else hidden_states

        def enter(module, args, kwargs):
            if args:
                return (states, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": states}

        below = structure.blocks[: self.start]
        before = [block.__dict__.get("forward") for block in below]
        handle = structure.blocks[self.start].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            for block in below:
                block.forward = passing
            yield
        finally:
            handle.remove()
            for block, own in zip(below, before, strict=True):
                if own is None:
                    block.__dict__.pop("forward", None)
                else:
                    block.forward = own
