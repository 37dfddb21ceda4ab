"""The gradients of one optimiser step: accumulated over passes, in less memory if need be, never silently broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.attach import trainable
from adapterprobe.adapters.batch_losses import batch_losses
from adapterprobe.adapters.batching import parts_of
from adapterprobe.adapters.detect_head import head_of
from adapterprobe.adapters.group_dro import GroupWeights
from adapterprobe.adapters.neutral_text_drift import text_divergence
from adapterprobe.adapters.nonfinite import NonFinite, explain
from adapterprobe.adapters.objectives import Targets, rest_divergence
from adapterprobe.adapters.on_off import adapter_off
from adapterprobe.adapters.sharding import fsdp_requested as sharded
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Batch, Engine
from adapterprobe.engine.memory import give_back, out_of_memory
from adapterprobe.errors import ModelError
from adapterprobe.progress import say
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.prompts.encoded import Encoded

LARGEST_SCALE = 2.0**15
"""Of losses in fp16, whose small gradients would be nought (Micikevicius et al. 2018, section 3.2)."""


@dataclass
class Stepper:
    """Makes the gradients of steps.

    Args:
        neutral: token ids of the paragraphs whose continuation is to stay.
        rows: most prompts of one pass; halved where memory runs out.
    """

    wrapped: torch.nn.Module
    engine: Engine
    train: Encoded
    targets: Targets
    config: AdapterConfig
    neutral: Sequence[tuple[int, ...]]
    rows: int
    scale: float = 1.0
    robust: GroupWeights | None = None
    """Weights of the prompts' groups, where the worst of them is trained for."""

    def __post_init__(self) -> None:
        self.parameters = list(trainable(self.wrapped).values())
        self.model = self.engine.model
        if next(self.model.parameters()).dtype == torch.float16:
            self.scale = LARGEST_SCALE

    def gradients(self, batches: list[Batch], noise: int, number: int) -> float:
        """Leave the gradients of the step's mean loss, times `scale`, in the adapter's parameters.

        Args:
            noise: seed of dropout. number: of the step.

        Returns:
            The objective's loss summed over the prompts (without what keeps other things as they are).

        Raises:
            ModelError: a single prompt does not fit into memory.
        """
        while True:
            self.forget()
            torch.manual_seed(noise)
            passes = self._shared_out(batches)
            try:
                summed = self._accumulate(passes, number)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if sharded():
                    # The other processes are in the midst of a pass that needs this one.
                    raise ModelError(
                        f"memory ran out in step {number} with {self.rows} prompts a pass, and sharded processes cannot take smaller "
                        f"passes on their own; set adapter.micro_batch={max(1, self.rows // 2)}"
                    ) from error
                largest = max(len(p.rows) for p in self._mine(passes))
                shortage = str(error).splitlines()[0][:120]
            else:
                return processes.all_reduce_gradients(self.parameters, summed)
            self.forget()
            give_back()
            if largest == 1:
                raise ModelError(
                    f"a single prompt of {max(map(len, self.train.ids))} tokens does not fit into memory ({shortage}); set "
                    "adapter.checkpoint_activations=true, lower elicit.shots, or adapt fewer layers"
                )
            self.rows = max(1, largest // 2)
            say(f"out of memory in step {number}: going on with {self.rows} prompts a pass (adapter.micro_batch)")

    def forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _shared_out(self, batches: list[Batch]) -> list[Batch]:
        """The passes of a step, the same in all processes and at least one for each, if there are prompts enough."""
        size = min(self.config.micro_batch, -(-sum(len(b.rows) for b in batches) // processes.count()))
        return [part for batch in batches for part in parts_of(self.train, batch, size)]

    def _mine(self, passes: list[Batch]) -> list[Batch]:
        """This process's passes, cut further where its memory has run out."""
        return [piece for part in processes.mine(passes) for piece in parts_of(self.train, part, self.rows)]

    def _accumulate(self, passes: list[Batch], number: int) -> float:
        count = sum(len(part.rows) for part in passes)
        summed = 0.0
        if self.robust is not None:
            self.robust.begin()
        for part in self._mine(passes):
            summed += self._one(part, count)
        if sharded() and len(processes.mine(passes)) < -(-len(passes) // processes.count()):
            # The others' passes need this process's part of the weights.
            self._one(passes[0], count, share=0.0)
        if self.config.kl_text_weight and self.neutral and (processes.is_main() or sharded()):
            text = self.neutral[number % len(self.neutral)]
            kept = self.config.kl_text_weight * text_divergence(self.wrapped, self.model, text)
            (self.scale * kept * processes.is_main()).backward()
        return summed

    def _one(self, part: Batch, count: int, share: float = 1.0) -> float:
        """One pass forward and back; its gradients times `share`."""
        base = self._base_logits(part) if self.config.kl_vocab_weight else None
        with self._losses(part, logits=base is not None) as found:
            whole = found.losses.sum()
            if self.robust is not None:
                whole = (found.losses * self.robust.of(part.rows, found.losses.device)).sum()
                self.robust.observe(part.rows, found.losses)
            if base is not None:
                assert found.logits is not None
                kept = rest_divergence(base, found.logits, self._asked_for(part))
                whole = whole + self.config.kl_vocab_weight * kept.sum()
            (share * self.scale * whole / count).backward()
        return float(found.losses.detach().sum())

    def _losses(self, part: Batch, logits: bool = False):
        return batch_losses(self.engine, part, self.train, self.targets, self.config, head_of(self.wrapped), logits)

    def _asked_for(self, part: Batch) -> list[ChoiceTokens]:
        """The choices that training moves, so that they are left out of what is to stay; a head moves none."""
        if head_of(self.wrapped) is not None:
            return [ChoiceTokens((), ())] * len(part.rows)
        return [self.train.choices[row] for row in part.rows]

    @torch.no_grad()
    def _base_logits(self, part: Batch) -> torch.Tensor:
        with adapter_off_eval(self.wrapped):
            return self.engine.run(part, states=False).logits

    def explain(self, batches: list[Batch], number: int) -> NonFinite | None:
        """Repeat the passes of a step one by one: which is the first that is not finite, and where does that begin?"""
        with self._unscaled():
            for part in (part for batch in batches for part in parts_of(self.train, batch, self.rows)):
                with torch.no_grad(), self._losses(part) as found:
                    bad = (~found.losses.isfinite()).nonzero().flatten().tolist()
                if bad:
                    rows = [part.rows[i] for i in bad]
                    with torch.no_grad():
                        return explain(
                            self.model,
                            self.train,
                            rows,
                            number,
                            "loss",
                            lambda p=part: self.engine.run(p, states=False),
                        )
                self.forget()
                self._one(part, len(part.rows))
                if any(p.grad is not None and not p.grad.isfinite().all() for p in self.parameters):
                    rows = list(part.rows)
                    return explain(
                        self.model, self.train, rows, number, "gradient", lambda p=part: self._one(p, len(p.rows))
                    )
        return None

    @contextlib.contextmanager
    def _unscaled(self) -> Iterator[None]:
        before, self.scale = self.scale, 1.0
        try:
            yield
        finally:
            self.scale = before
            self.forget()


@contextlib.contextmanager
def adapter_off_eval(wrapped: torch.nn.Module) -> Iterator[None]:
    """Within, the adapter is off and no dropout is on."""
    training = wrapped.training
    try:
        wrapped.eval()
        with adapter_off(wrapped):
            yield
    finally:
        wrapped.train(training)
