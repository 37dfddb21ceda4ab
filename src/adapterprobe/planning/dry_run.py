"""Passes and training steps, tried out on a run's own prompts to see what the whole will take."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from adapterprobe.adapters import adapter_merged, attach
from adapterprobe.adapters.activation_checkpointing import activations_again
from adapterprobe.adapters.attach import detach, fixed_entries, trainable
from adapterprobe.adapters.batching import micro_batches, steps
from adapterprobe.adapters.cached_training import FIXED_BATCH
from adapterprobe.adapters.detect_head import adapted_blocks, attach_head, head_of
from adapterprobe.adapters.fused_lora import fused_lora
from adapterprobe.adapters.gradient_step import Stepper
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.neutral_text_drift import drift, encode_paragraphs, neutral_paragraphs
from adapterprobe.adapters.optimizer import Optimiser
from adapterprobe.adapters.train import targets_of
from adapterprobe.engine import Batch, Engine, LowerBlockCache
from adapterprobe.engine.memory import out_of_memory
from adapterprobe.errors import ModelError
from adapterprobe.evaluate.schema import FOLLOWUPS
from adapterprobe.models import LanguageModel
from adapterprobe.models.placement import devices_of, is_dispatched, weight_bytes
from adapterprobe.planning.cost_model import challenge_seconds, statistics_seconds
from adapterprobe.planning.memory import adapted_weights, counted, free_memory, size_of, watched
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.knowledge_prompts import KnowledgePrompts, Rounds
from adapterprobe.prompts.unrelated_questions import questions_behind, unrelated_questions

TRIED_PASSES, TRIED_STEPS, TRIED_TEXTS, TRIED_ROWS = 4, 6, 3, 40
ALLOCATOR = 0.15
"""What the C library's allocator holds beside what is in use after many passes of different lengths, as a share (seen: 0.04
to 0.24)."""
STANDING = 0.3
"""Share of groups that are still asked in a second round about what the model knows, as a rule of thumb."""


@dataclass(frozen=True)
class Plan:
    """What is to be expected. Bytes and seconds."""

    memory: dict[str, int]
    """Of training, by part; their sum is the peak."""
    disk: dict[str, int]
    seconds: dict[str, float]
    """By stage; of the whole run, all seeds."""
    device: str
    free: int
    """Bytes of memory that the device has for it."""
    micro_batch: int
    largest_micro_batch: int
    longest: int
    """Tokens of the longest prompt."""
    prompts: int
    steps: int
    weights: dict[str, int]
    """Of a model that is spread out: bytes of weights by device, and `elsewhere` (main memory or disk, between passes)."""

    @property
    def peak(self) -> int:
        return sum(self.memory.values())

    def to_json(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "peak": self.peak,
            "total_seconds": sum(self.seconds.values()),
        }


class Trial:
    """A model, and a run's prompts, with which passes and steps are tried out."""

    def __init__(self, config, lm: LanguageModel, engine: Engine, encoded: Encoded, belief, whole, seconds):
        self.config, self.lm, self.engine, self.encoded, self.belief = config, lm, engine, encoded, belief
        self.whole, self.seconds = whole, seconds
        self.lowest = min(adapted_blocks(config.adapter, lm.structure.n_layers))
        self.train = encoded.subset(encoded.where("adapter-train"))
        self.select = encoded.subset(encoded.where("select"))
        self.batches = engine.plan(encoded.ids)
        self.tokens = sum(batch.tokens for batch in self.batches)

    def plan(self) -> Plan:
        n_layers, seeds = self.lm.structure.n_layers, len(self.config.seeds) if self.whole else 1
        per_token = self._seconds_a_token()
        below = self.lowest / n_layers
        memory, trained, total = self._training()
        if self.whole:
            self.seconds["hidden states, adapter off"] = self.tokens * per_token
            self.seconds["what the model knows"] = self._belief_tokens() * per_token
            self.seconds["hidden states, adapter on"] = seeds * self.tokens * per_token * (1 - below)
        elif self.lowest:
            self.seconds["layers below the adapter"] = self.tokens * per_token * below
        self.seconds["train adapters"] = seeds * trained
        if self.whole and (self.config.evaluate.stranger or self.config.evaluate.baselines):
            self.seconds["judges that see no state"] = self._baseline_tokens() * per_token
        if self.whole:
            self.seconds["what detectors are held against"] = challenge_seconds(
                self.config, self.encoded, self.tokens, trained, per_token, below
            )
            self.seconds["probes, controls, statistics, report"] = statistics_seconds(
                self.config, self.lm, self.encoded, self.tokens, seeds, per_token
            )
        state = (n_layers + 1) * self.lm.structure.width * 2 if self.lm.dtype != torch.float32 else 0
        state = state or (n_layers + 1) * self.lm.structure.width * 4
        above = (n_layers - self.lowest) / (n_layers + 1) if self.lowest else 1
        disk = {"hidden states": int(len(self.encoded) * state * (1 + seeds * above))} if self.whole else {}
        disk["adapters and checkpoints"] = seeds * memory["adapter"] // 2 + memory["adapter"] + memory["optimizer"]
        free = sum(free_memory(torch.device(name)) for name in devices_of(self.lm.model)) + (
            0 if self.lm.device.type == "cuda" else memory["weights"] + memory.get("libraries", 0)
        )
        return Plan(
            memory,
            disk,
            self.seconds,
            ", ".join(devices_of(self.lm.model)),
            free,
            self.config.adapter.micro_batch,
            self._largest(memory, free),
            max(map(len, self.encoded.ids)),
            len(self.encoded),
            total,
            weight_bytes(self.lm.model) if is_dispatched(self.lm.model) else {},
        )

    def _seconds_a_token(self) -> float:
        """Of a pass that records hidden states."""
        tried = self.batches[:: max(1, len(self.batches) // TRIED_PASSES)][:TRIED_PASSES]
        with torch.no_grad():
            self.engine.run(tried[0])
            start = time.perf_counter()
            for batch in tried:
                self.engine.run(batch).recorded.float().cpu()
            self._wait()
            return (time.perf_counter() - start) / sum(batch.tokens for batch in tried)

    def _wait(self) -> None:
        if self.lm.device.type == "cuda":
            torch.cuda.synchronize()

    def _belief_tokens(self) -> float:
        def rounds(found: Rounds, standing: float) -> float:
            sizes = []
            for prompts in found:
                ids = encode(self.lm.tokenizer, prompts, None).ids if prompts else ()
                sizes.append(sum(batch.tokens for batch in self.engine.plan(ids)))
            return sum(size * (1 if number == 0 else standing) for number, size in enumerate(sizes))

        belief: KnowledgePrompts = self.belief
        return rounds(belief.known, STANDING) + rounds(belief.recalled, 1.0)

    def _baseline_tokens(self) -> float:
        """Tokens that arms which see no state take: a stranger reads all prompts once (taken for a model of this size), unrelated questions
        stand behind each. Words alone take none."""
        settings, found = self.config.evaluate, 0.0
        if settings.stranger:
            found += self.tokens
        if FOLLOWUPS in settings.baselines:
            some = self.encoded.prompts[:: max(1, len(self.encoded) // TRIED_ROWS)]
            prompts = questions_behind(
                some, unrelated_questions(), self.config.read, self.lm.tokenizer, self.lm.context_length
            )
            ids = encode(self.lm.tokenizer, prompts, self.lm.context_length, self.lm.vocabulary).ids
            tokens = sum(batch.tokens for batch in self.engine.plan(ids))
            found += tokens * len(self.encoded) / len(some)
        return found

    def _training(self) -> tuple[dict[str, int], float, int]:
        """(memory by part, seconds of one training, its steps)."""
        config, lm = self.config.adapter, self.lm
        planned: list[list[Batch]] = []
        epoch = 0
        while epoch < config.epochs if config.max_steps is None else len(planned) < config.max_steps:
            rng = np.random.default_rng([self.config.seeds[0], epoch])
            planned += steps(
                micro_batches(self.train, min(config.micro_batch, config.batch_size), rng), config.batch_size
            )
            epoch += 1
        planned = planned[: config.max_steps]
        try:
            with watched(lm.device) as held:
                memory, per_token, around, judged = self._try(planned)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ModelError(
                f"does not fit: a pass of {config.micro_batch} prompts runs out of memory on {lm.device}; plan with adapter.micro_batch="
                f"{max(1, config.micro_batch // 2)}, adapter.checkpoint_activations=true, or model.quantize=4bit"
            ) from error
        # Temporary copies, and what an allocator keeps of them.
        memory["working space"] = max(0, held[1] - held[0] - sum(memory.values()))
        if lm.device.type != "cuda":
            memory["allocator"] = int(ALLOCATOR * (held[0] + sum(memory.values())))
        elsewhere = weight_bytes(lm.model).get("elsewhere", 0)
        own = {"weights": size_of(lm.model.state_dict().values()) - elsewhere}
        if lm.device.type != "cuda":
            own = {"libraries": max(0, held[0] - own["weights"])} | own
        seconds = around + per_token * sum(batch.tokens for step in planned for batch in step) + judged * (epoch + 2)
        return own | memory, seconds, len(planned)

    def _try(self, planned: list[list[Batch]]) -> tuple[dict[str, int], float, float, float]:
        """Attach the adapter, take some steps (and the largest of all), judge it on select, take it off again.

        Returns:
            memory by part; seconds a token of a step, of attaching, and of judging.
        """
        config, lm = self.config.adapter, self.lm
        largest = max((batch for step in planned for batch in step), key=lambda batch: batch.tokens)
        tried = [[largest], *planned[: TRIED_STEPS + 1]]
        rows = sorted({row for step in tried for batch in step for row in batch.rows})
        say(f"trying out {len(tried)} steps of {len(planned)}")
        start = time.perf_counter()
        wrapped = attach(lm.model, lm.structure, config, 0, lm.original)
        lm.forget_originals()
        try:
            select = self.engine.plan(self.select.ids)
            texts, measured = (encode_paragraphs(lm.tokenizer, t) for t in neutral_paragraphs(config.neutral_text))
            targets = targets_of(wrapped, self.engine, self.train.subset(rows), config).among(rows, len(self.train))
            select_targets = targets_of(wrapped, self.engine, self.select, config)
            attach_head(wrapped, self.engine, self.train.subset(rows), config)
            around = time.perf_counter() - start
            batches = [*select, *(batch for step in tried for batch in step)]
            trunk = LowerBlockCache(self.lowest, self.engine, batches) if self.lowest else None
            if trunk is not None:
                trunk.collect(self.engine)
            optimiser = Optimiser(trainable(wrapped), config, len(planned), fixed_entries(wrapped))
            copies = [optimiser.weights(), optimiser.weights()]
            stepper = Stepper(wrapped, self.engine, self.train, targets, config, texts, config.micro_batch)
            wrapped.train()
            times = []
            with (
                self.engine.starting_from(trunk),
                fused_lora(wrapped),
                activations_again(lm.model, config.checkpoint_activations),
            ):
                with counted(lm.model, lm.structure.vocabulary) as kept:
                    stepper._one(largest, len(largest.rows))
                for step in tried:
                    begun = time.perf_counter()
                    stepper.gradients(step, 0, 0)
                    optimiser.take_gradients(stepper.scale)
                    optimiser.step()
                    optimiser.forget_gradients()
                    self._wait()
                    times.append((time.perf_counter() - begun) / sum(batch.tokens for batch in step))
                wrapped.eval()
                begun = time.perf_counter()
                with adapter_merged(wrapped):
                    merged = size_of(adapted_weights(wrapped))
                    measure(self.engine, self.select, select_targets, config, head_of(wrapped))
                judged = time.perf_counter() - begun
                # What changes on neutral text, and the losses and logits before and after.
                begun = time.perf_counter()
                drift(wrapped, lm.model, measured[:TRIED_TEXTS])
                around += (time.perf_counter() - begun) * len(measured) / max(1, len(measured[:TRIED_TEXTS]))
                around += 2 * judged * min(1.0, FIXED_BATCH / len(self.select))
            parameters = list(trainable(wrapped).values())
            size = sum(p.numel() for p in parameters)
            copies.append(optimiser.state())
            memory = {
                # As it is in the model, its fp32 copy, and the copies of the start, of the best epoch and for a checkpoint.
                "adapter": size_of(parameters) + 4 * 4 * size,
                "gradients": size_of(parameters) + 4 * size,
                "optimizer": 2 * 4 * size,
                "activations": max(kept.activations, merged),
                "logits": 2 * kept.logits,
                "trunk cache": self._trunk_bytes(),
            }
        finally:
            detach(wrapped)
        return memory, float(np.median(times[2:] or times)), around, judged

    def _trunk_bytes(self) -> int:
        if not self.lowest:
            return 0
        size = self.tokens * self.lm.structure.width * self.lm.dtype.itemsize
        return size if size <= 2 << 30 else 0

    def _largest(self, memory: dict[str, int], free: int) -> int:
        """The largest micro-batch whose pass fits: what it keeps grows with its tokens."""
        own = memory["activations"] + memory["logits"]
        rest = sum(memory.values()) - own
        each = max(1, own // max(1, self.config.adapter.micro_batch))
        return max(0, int((free - rest) * 0.9) // each)
