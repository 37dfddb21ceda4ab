"""The forward engine: equal to the plain forward pass, with less work.

Rows of a batch share prefixes whose keys and values are computed once and lent to every row. Suffixes are
padded on the right only: a causal model's answer position never sees what comes after it, so no mask and no
position ids are needed, whatever the kind of attention or position encoding. The output head is given the
answer position of each row alone, by a hook in front of it, so that a model's own scaling or capping of
logits stays in force and full-vocabulary logits of other positions are never made.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from adapterprobe.engine.batches import Batch
from adapterprobe.engine.trunk import Trunk
from adapterprobe.errors import ModelError
from adapterprobe.models.blocks import Structure
from adapterprobe.progress import say


@dataclass(frozen=True, slots=True)
class Output:
    """What a forward pass leaves: `logits` rows x vocabulary; `states` layers x rows x width, or None."""

    logits: torch.Tensor
    states: torch.Tensor | None


def _tensor(output) -> torch.Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output


@contextlib.contextmanager
def _recording(structure: Structure, last: torch.Tensor, layers: list[int] | None) -> Iterator[dict]:
    """Collect the residual stream at each row's answer position; hooks are gone afterwards."""
    kept: dict[int, torch.Tensor] = {}
    rows = torch.arange(len(last), device=last.device)
    wanted = range(structure.n_layers + 1) if layers is None else layers
    handles = []

    def entering(module, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]
        kept[0] = states[rows, last].detach()

    def leaving(index):
        def hook(module, args, output):
            kept[index] = _tensor(output)[rows, last].detach()

        return hook

    try:
        if 0 in wanted:
            handles.append(structure.blocks[0].register_forward_pre_hook(entering, with_kwargs=True))
        for index in range(1, structure.n_layers + 1):
            if index in wanted:
                handles.append(structure.blocks[index - 1].register_forward_hook(leaving(index)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _head_at(head: nn.Module | None, last: torch.Tensor) -> Iterator[list[bool]]:
    """Give the output head only each row's answer position (a contiguous rows x 1 x width)."""
    fired: list[bool] = []
    if head is None:
        yield fired
        return
    rows = torch.arange(len(last), device=last.device)

    def narrow(module, args):
        hidden = args[0]
        if hidden.ndim == 3 and hidden.shape[0] == len(last) and hidden.shape[1] > int(last.max()):
            fired.append(True)
            # Contiguous on purpose: a strided slice makes the matrix product copy the head once per row.
            return (hidden[rows, last].unsqueeze(1).contiguous(), *args[1:])
        return None

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield fired
    finally:
        handle.remove()


class Engine:
    """Runs planned batches through one model.

    Args:
        model: a transformers causal language model (adapters injected or not).
        structure: its parts, see `find_structure`.
        share: share prefixes where the model can (it is tried out once, and said if it cannot).
    """

    def __init__(self, model: nn.Module, structure: Structure, share: bool = True) -> None:
        self.model, self.structure = model, structure
        self._trunk: Trunk | None = None
        self._prefix: tuple[tuple[tuple[int, ...], ...], object] | None = None
        self.share = share and self._can_share()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @contextlib.contextmanager
    def starting_from(self, trunk: Trunk | None) -> Iterator[None]:
        """Within, batches that the trunk knows skip the blocks below it."""
        self.forget()
        self._trunk = trunk
        try:
            yield
        finally:
            self._trunk = None
            self.forget()

    def run(self, batch: Batch, states: bool = True, layers: list[int] | None = None) -> Output:
        """One batch. Without gradients the prefixes are kept for the next batch with the same ones; with
        gradients they are computed anew, as part of the graph.

        Args:
            states: whether hidden states are kept; `layers`: which (with a trunk, only those above it).
        """
        ids, lengths = self.padded(batch)
        last = torch.tensor(lengths, device=self.device) - 1
        trunk = self._trunk if self._trunk is not None and self._trunk.knows(batch) else None
        cache = self.lend(self._prefix_cache(batch, trunk), batch.owners) if batch.prefixes else None
        recording = _recording(self.structure, last, layers) if states else contextlib.nullcontext({})
        resumed = trunk.resumed(self.structure, trunk.suffixes(batch)) if trunk else contextlib.nullcontext()
        with recording as kept, _head_at(self.structure.head, last) as fired, resumed:
            out = self.forward(ids, cache)
        logits = out.logits[:, 0] if fired else out.logits[torch.arange(len(last)), last]
        stacked = torch.stack([kept[index] for index in sorted(kept)]) if states else None
        return Output(logits, stacked)

    def forget(self) -> None:
        """Drop the kept prefix: call it when the model's weights have changed."""
        self._prefix = None

    def forward(self, ids: torch.Tensor, cache=None):
        """The model's own forward pass; with a cache, its keys and values are read and added to."""
        return self.model(input_ids=ids.to(self.device), past_key_values=cache, use_cache=cache is not None)

    def padded(self, batch: Batch) -> tuple[torch.Tensor, list[int]]:
        """Suffix ids padded on the right (rows x tokens), and each row's length."""
        lengths = [len(suffix) for suffix in batch.suffixes]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, suffix in enumerate(batch.suffixes):
            ids[row, : len(suffix)] = torch.tensor(suffix)
        return ids, lengths

    def new_cache(self):
        """An empty key-value cache of the model's kind."""
        from transformers.cache_utils import DynamicCache

        return DynamicCache(config=self.model.config)

    def lend(self, cache, owners: tuple[int, ...]):
        """A copy of a key-value cache with one entry per row, taken from the row's prefix. The original stays
        as it is: its tensors are read, never changed."""
        lent = copy.copy(cache)
        lent.layers = [copy.copy(layer) for layer in cache.layers]
        lent.reorder_cache(torch.tensor(owners, device=self.device))
        return lent

    def _prefix_cache(self, batch: Batch, trunk: Trunk | None):
        grad = torch.is_grad_enabled()
        if not grad and self._prefix is not None and self._prefix[0] == batch.prefixes:
            return self._prefix[1]
        cache = self.new_cache()
        last = torch.full((len(batch.prefixes),), len(batch.prefixes[0]) - 1, device=self.device)
        resumed = trunk.resumed(self.structure, trunk.prefixes(batch)) if trunk else contextlib.nullcontext()
        with _head_at(self.structure.head, last), resumed:
            self.forward(torch.tensor(batch.prefixes), cache)
        if not grad:
            self._prefix = (batch.prefixes, cache)
        return cache

    @torch.no_grad()
    def _can_share(self) -> bool:
        """Try sharing on a few tokens: some architectures keep no keys and values, or keep them otherwise."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        tokens = torch.randint(0, vocabulary, (3, 16), generator=torch.Generator().manual_seed(0)).tolist()
        tokens[1][:10] = tokens[0][:10]
        rows = (0, 1, 2)
        plain = Batch((), (0, 0, 0), rows, tuple(map(tuple, tokens)))
        prefixes = (tuple(tokens[0][:10]), tuple(tokens[2][:10]))
        shared = Batch(prefixes, (0, 0, 1), rows, tuple(tuple(t[10:]) for t in tokens))
        try:
            expected = self.run(plain, states=False).logits.float()
            got = self.run(shared, states=False).logits.float()
        except Exception as error:
            say(f"prefixes are not shared: {type(self.model).__name__} does not take a cache ({error})")
            return False
        finally:
            self.forget()
        gap = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
        if not torch.isfinite(gap) or gap > 0.1:
            say(f"prefixes are not shared: {type(self.model).__name__} gives other logits with a cache")
            return False
        return True


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
