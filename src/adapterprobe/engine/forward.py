"""The forward engine: equal to the plain forward pass, with less work.

Rows are laid end to end in one packed row, shared prefixes once, without padding (see `packed`). Models whose
attention cannot be reached that way run row by row, padded on the right: a causal model's answer position never
sees what comes after it, so no mask and no position ids are needed. Either way the output head is given the answer
positions alone, by a hook in front of it, so that a model's own scaling or capping of logits stays in force and
full-vocabulary logits of other positions are never made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapterprobe.engine.batches import Batch, Group, plan_batches
from adapterprobe.engine.memory import in_parts
from adapterprobe.engine.output import Output, joined, relative_gap
from adapterprobe.engine.packed import Layout, packable_configs, packed
from adapterprobe.engine.pooling import BatchReads, token_places
from adapterprobe.engine.steer import Where, adding, at
from adapterprobe.engine.trunk import Enough, LowerBlockCache
from adapterprobe.models.blocks import Structure
from adapterprobe.models.placement import input_device
from adapterprobe.progress import say
from adapterprobe.readout import Span, TokenReads
from adapterprobe.terminal import reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _tensor(output) -> torch.Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output


@contextlib.contextmanager
def residual_states(
    structure: Structure,
    read: Callable[[torch.Tensor], torch.Tensor],
    layers: Sequence[int] | None,
    stop: bool = False,
) -> Iterator[dict[int, torch.Tensor]]:
    """Collect what `read` takes of the residual stream (passes' rows x tokens x width); hooks are gone afterwards.

    Args:
        stop: leave the pass (by `Enough`) at the last of the layers.
    """
    kept: dict[int, torch.Tensor] = {}
    wanted = range(structure.n_layers + 1) if layers is None else layers
    handles = []

    def keep(index: int, states: torch.Tensor) -> None:
        kept[index] = read(states)
        if stop and index == max(wanted):
            raise Enough

    def entering(module, args, kwargs):
        keep(0, args[0] if args else kwargs["hidden_states"])

    def leaving(index):
        return lambda module, args, output: keep(index, _tensor(output))

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
def _head_at(head: nn.Module | None, where: Where, shape: torch.Size) -> Iterator[list[bool]]:
    """Give the output head only the answer positions (prompts x 1 x width), if it is handed all of `shape`.

    Args:
        head: as it stands in the model now: with an adapter on it, the layer around it, so that its base and its adapter see the
            same positions.
    """
    fired: list[bool] = []
    if head is None:
        yield fired
        return

    def narrow(module, args):
        hidden = args[0]
        if hidden.shape[:-1] == shape:
            fired.append(True)
            # Contiguous on purpose: a strided slice makes the matrix product copy the head once per row.
            return (at(hidden, where).unsqueeze(1).contiguous(), *args[1:])
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
        share: pack rows and share prefixes where the model can (it is tried out once, and said if it cannot).
    """

    def __init__(self, model: PreTrainedModel, structure: Structure, share: bool = True) -> None:
        self.model, self.structure = model, structure
        self._trunk: LowerBlockCache | None = None
        self._added: tuple[int, torch.Tensor] | None = None
        self._configs = packable_configs(model)
        self.share = share
        self.share = share and self._can_share()

    @property
    def device(self) -> torch.device:
        """Where tokens go in and answers come out."""
        return input_device(self.model)

    def plan(self, sequences: Sequence[Sequence[int]], token_budget: int = 2048) -> list[Batch]:
        """Batches as this engine runs them best, see `plan_batches`."""
        return plan_batches(sequences, token_budget, self.share)

    @contextlib.contextmanager
    def starting_from(self, trunk: LowerBlockCache | None) -> Iterator[None]:
        """Within, batches that the trunk knows skip the blocks below it."""
        self._trunk = trunk
        try:
            yield
        finally:
            self._trunk = None

    @contextlib.contextmanager
    def steered(self, layer: int, vector: torch.Tensor) -> Iterator[None]:
        """Within, every pass has `vector` (width numbers) added to hidden state `layer` at its answer positions."""
        self._added = (layer, vector.to(next(self.model.parameters()).dtype))
        try:
            yield
        finally:
            self._added = None

    def run(
        self,
        batch: Batch,
        states: bool = True,
        layers: list[int] | None = None,
        reads: Sequence[TokenReads] = (),
    ) -> Output:
        """One batch.

        Args:
            states: whether hidden states are kept; `layers`: which (with a trunk, only those above it).
            reads: what states are read at, of all planned rows; none: the answer position. Several stand one after the other
                in the output: layers x (reads * rows) x width, fp32.
        """
        with self.passing(batch, states, layers, reads) as output:
            return output

    def run_in_parts(
        self,
        batch: Batch,
        states: bool = True,
        layers: list[int] | None = None,
        reads: Sequence[TokenReads] = (),
        feed: LowerBlockCache | None = None,
    ) -> Output:
        """The same, in smaller passes where memory runs out.

        Args:
            feed: a trunk that is to keep what passes by.

        Raises:
            ModelError: a single row does not fit.
        """

        def take(part: Batch) -> Output:
            with feed.listening(self, part) if feed else contextlib.nullcontext():
                return self.run(part, states=states, layers=layers, reads=reads)

        return joined(list(in_parts(take, batch)), max(1, len(reads)))

    @contextlib.contextmanager
    def passing(
        self,
        batch: Batch,
        states: bool = True,
        layers: list[int] | None = None,
        reads: Sequence[TokenReads] = (),
    ) -> Iterator[Output]:
        """The same, with everything that the pass needed still in place: a backward pass that computes activations again
        must be made within."""
        with self.laid_out(batch) as (inputs, where):
            shape = inputs["input_ids"].shape
            read = BatchReads(batch, self.share, reads, shape[1]) if reads else lambda s: at(s, where)
            recording = (
                residual_states(self.structure, lambda s: read(s).detach(), layers)
                if states
                else contextlib.nullcontext({})
            )
            steering = adding(self.structure, where, *self._added) if self._added else contextlib.nullcontext()
            # Steering comes first, so that what is recorded is what it made.
            with steering, recording as kept, self._answering(batch, inputs, where) as answer:
                logits = answer()
                # Blocks may be on several devices.
                stacked = [kept[index].to(self.device) for index in sorted(kept)]
                yield Output(logits, torch.stack(stacked) if states else None)

    @contextlib.contextmanager
    def reading_tokens(
        self, batch: Batch, layers: Sequence[int], spans: Sequence[Span], logits: bool = False
    ) -> Iterator[tuple[dict[int, torch.Tensor], torch.Tensor | None]]:
        """States at the tokens of `spans` (of all planned rows), by layer: tokens x width, one row's after the other's, with gradients.

        Args:
            layers: 0 .. n_layers; the blocks above the last of them are not run, unless `logits` (rows x vocabulary) are asked for too.
        """
        with self.laid_out(batch) as (inputs, where):
            places = token_places(batch, self.share, inputs["input_ids"].shape[1])
            spots = [place.of(t) for row, place in zip(batch.rows, places, strict=True) for t in range(*spans[row])]
            index = torch.tensor(spots, device=self.device)
            recording = residual_states(
                self.structure,
                lambda s: s.flatten(0, 1).index_select(0, index.to(s.device)).to(self.device),
                layers,
                stop=not logits,
            )
            with recording as kept, self._answering(batch, inputs, where) as answer:
                found = None
                with contextlib.suppress(Enough):
                    found = answer()
                yield kept, found

    @contextlib.contextmanager
    def predicting(self, batch: Batch, spans: Sequence[Span]) -> Iterator[torch.Tensor]:
        """Logits of the tokens of `spans` (of all planned rows; none begins a row): what the model expects there, from the tokens before
        it. Tokens x vocabulary, one row's after the other's, with gradients; a backward pass must be made within."""
        with self.laid_out(batch) as (inputs, _):
            width = inputs["input_ids"].shape[1]
            places = token_places(batch, self.share, width)
            spots = [place.of(t - 1) for row, place in zip(batch.rows, places, strict=True) for t in range(*spans[row])]
            index = torch.tensor(spots, device=self.device)
            with self._answering(batch, inputs, (index // width, index % width)) as answer:
                yield answer()

    @contextlib.contextmanager
    def _answering(self, batch: Batch, inputs: dict[str, torch.Tensor], where: Where) -> Iterator[Callable]:
        """Within, what is given runs the model, from the trunk where that knows the batch: the logits at the answer positions."""
        trunk = self._trunk if self._trunk is not None and self._trunk.knows(batch) else None
        resumed = trunk.resumed(self.structure, batch, self.share, self.device) if trunk else contextlib.nullcontext()
        with _head_at(self.model.get_output_embeddings(), where, inputs["input_ids"].shape) as fired, resumed:

            def answer() -> torch.Tensor:
                logits = self.model(**inputs, use_cache=False).logits
                return (logits[:, 0] if fired else at(logits, where)).to(self.device)

            yield answer

    @contextlib.contextmanager
    def laid_out(self, batch: Batch) -> Iterator[tuple[dict[str, torch.Tensor], Where]]:
        """The model's inputs for a batch, and where in them each prompt's answer position is. Within, the
        model's attention is the one that these inputs need."""
        if not self.share:
            sequences = batch.sequences
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sequences], batch_first=True)
            last = torch.tensor([len(s) - 1 for s in sequences])
            yield {"input_ids": ids.to(self.device)}, (torch.arange(len(last)).to(self.device), last.to(self.device))
            return
        layout = Layout(batch, self.device)
        inputs = {"input_ids": layout.ids, "position_ids": layout.positions, "attention_mask": layout.everything}
        with packed(self._configs, layout):
            yield inputs, (torch.zeros_like(layout.answers), layout.answers)

    @torch.no_grad()
    def _can_share(self) -> bool:
        """Try packing on a few tokens: not every architecture's attention can be replaced, and what mixes neighbouring
        tokens in another way (convolutions, recurrences) must not be packed at all."""
        vocabulary = self.structure.vocabulary
        tokens = torch.randint(0, vocabulary, (4, 16), generator=torch.Generator().manual_seed(0)).tolist()
        a, b, c, other = map(tuple, tokens)

        def batch(first: tuple[int, ...]) -> Batch:
            # Suffixes of one token behind another row: whatever leaks from the neighbour reaches the answer.
            return Batch((Group(a[:10], (0, 1, 2), (first, b[:1], b[1:4])), Group((), (3,), (c,))))

        try:
            got = self.run(batch(a[10:]))
            moved = self.run(batch(other[10:]))
            self.share = False
            expected = self.run(batch(a[10:]))
        except Exception as error:
            reason = reason_of(error, 150)
            say(f"prefixes are not shared: {type(self.model).__name__} does not take packed rows ({reason})")
            return False
        exact = self.model.dtype == torch.float32
        # 8-bit products look at all rows of a pass to find outliers.
        leak = 0.1 if getattr(self.model, "is_quantized", False) else 1e-5 if exact else 1e-3
        near = (0.1 if getattr(self.model, "is_quantized", False) else 1e-4) if exact else 0.1
        if not (_gap(got, expected) <= near and _gap(got, moved, rows=slice(1, None)) <= leak):
            say(f"prefixes are not shared: {type(self.model).__name__} gives other results with packed rows")
            return False
        return True


def _gap(got: Output, expected: Output, rows: slice = slice(None)) -> float:
    """Largest difference of logits, and of each layer's states, relative to their scale."""
    logits = relative_gap(got.logits[rows], expected.logits[rows])
    # Not max(): it would let a NaN pass that comes second.
    return float(torch.tensor([logits, relative_gap(got.recorded[:, rows], expected.recorded[:, rows])]).max())
