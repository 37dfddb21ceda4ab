"""Adapters of a run: trained once per seed, cached by content, recorded while merged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from adapterprobe.activations import HiddenStates, record
from adapterprobe.adapters import TrainResult, adapter_off, attach, train_adapter
from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.adapter_folder import adapter_loaded, base_model_record, save_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.adapters.checkpoint import drop_checkpoints
from adapterprobe.adapters.detect_head import attach_head, detach_head, head_of, head_spans
from adapterprobe.adapters.kinds import rate_of
from adapterprobe.adapters.metrics import measure
from adapterprobe.adapters.neutral_text_drift import drift, encode_paragraphs, neutral_paragraphs
from adapterprobe.adapters.tracking import tracked
from adapterprobe.adapters.train import Log, targets_of
from adapterprobe.cache import cache_root, digest, entry, write_atomic
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine, LowerBlockCache
from adapterprobe.errors import ModelError
from adapterprobe.models import LanguageModel
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded

TRAINING_VERSION = 3
"""Raise when the same inputs train to another adapter."""
FIXED_BATCH = 32
"""Prompts of the batch by which losses before and after training are compared."""


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter of one seed: where it is, how it was trained, what it changes."""

    seed: int
    folder: Path
    key: str
    result: TrainResult
    off_equal: bool
    on_difference: float
    """Largest change of a logit at the answer position over a fixed batch."""
    loss_first: float
    loss_last: float
    """Mean loss of the objective over a fixed batch of training prompts before and after training, in eval mode."""
    met: dict[str, float] = field(default_factory=dict)
    """Loss, accuracy and coverage on `select` of the adapter that was kept."""
    drift: dict[str, float] = field(default_factory=dict)
    """What changes on neutral text (see `drift`)."""
    seconds: float = 0.0
    """Wall time of training."""

    def to_json(self) -> dict:
        """What a report says of it."""
        names = ("seed", "off_equal", "on_difference", "loss_first", "loss_last", "met", "drift", "seconds")
        return {name: getattr(self, name) for name in names} | self.result.to_json()


def trained_adapter(
    lm: LanguageModel,
    engine: Engine,
    train: Encoded,
    select: Encoded,
    config: AdapterConfig,
    seed: int,
    trunk: SharedLowerBlocks,
    curves: Path | None = None,
) -> TrainedAdapter:
    """Train, or find in the cache. The model is left without adapter, as it was.

    Args:
        curves: folder for the learning curves of `config.track`.

    Raises:
        ModelError: with the adapter off the model is not what it was before, which no result would survive.
    """

    def content(encoded: Encoded) -> list:
        asked = [
            (p.example.truth, p.instructed, p.example.dataset, p.example.group, p.example.weight)
            for p in encoded.prompts
        ]
        read = [head_spans(encoded), encoded.false] if config.objective == "detect" else []
        read += [list(encoded.reads[0].spans), encoded.false] if config.target == "reply" else []
        return [list(encoded.ids), [(c.positive, c.negative) for c in encoded.choices], asked, *read]

    learned, measured = (encode_paragraphs(lm.tokenizer, part) for part in neutral_paragraphs(config.neutral_text))
    key = digest(
        lm.fingerprint,
        # Which facts are taught shows in the prompts themselves.
        config.model_dump(exclude={"track", "neutral_text", "lr", "taught"}),
        rate_of(config),
        learned if config.kl_text_weight else [],
        measured,
        seed,
        content(train),
        content(select),
        engine.share,
        TRAINING_VERSION,
    )
    fresh = []

    def make(folder: Path, log: Log | None = None) -> None:
        if processes.is_main():
            if (folder / "train.json").exists():
                drop_checkpoints(folder)
                return
            processes.broadcast_bool(True)
        fresh.append(True)
        about = _train(lm, engine, train, select, config, seed, trunk, folder, learned, measured, log)
        if processes.is_main():
            write_atomic(folder / "train.json", json.dumps(about, indent=1))
            drop_checkpoints(folder)

    # The main process locks the entry, looks, and writes; it says whether there is anything to train, and then the
    # others take part in every step. All find the outcome in the cache.
    if not processes.is_main() and processes.broadcast_bool(False):
        final = cache_root() / "adapters" / key
        make(final.with_name(final.name + ".part"))
        processes.wait()
    if config.track and curves is not None and processes.is_main():
        with tracked(config.track, curves, f"seed-{seed}", config.model_dump()) as log:
            folder = entry("adapters", key, lambda part: make(part, log), notice=say)
            if not fresh:
                for epoch in json.loads((folder / "train.json").read_text("utf-8"))["result"]["epochs"]:
                    log(epoch["epoch"], {f"select/{name}": epoch[name] for name in ("loss", "accuracy", "coverage")})
    else:
        folder = entry("adapters", key, make, notice=say)
    if processes.is_main():
        if fresh:
            processes.wait()
        else:
            processes.broadcast_bool(False)
    about = json.loads((folder / "train.json").read_text("utf-8"))
    return TrainedAdapter(
        seed,
        folder / "adapter",
        key,
        TrainResult(**about["result"]),
        *(about[name] for name in ("off_equal", "on_difference", "loss_first", "loss_last", "met", "drift", "seconds")),
    )


def _train(
    lm: LanguageModel,
    engine: Engine,
    train: Encoded,
    select: Encoded,
    config: AdapterConfig,
    seed: int,
    trunk: SharedLowerBlocks,
    folder: Path,
    learned: Sequence[tuple[int, ...]],
    measured: Sequence[tuple[int, ...]],
    log: Log | None,
) -> dict:
    """Train and save one adapter. Returns what there is to say of it."""
    started = time.monotonic()
    fixed = train.subset(range(min(FIXED_BATCH, len(train))))
    probe_batch = engine.plan(select.ids[:4])
    before = _logits(engine, probe_batch)
    model = base_model_record(lm)
    wrapped = attach(lm.model, lm.structure, config, seed, lm.original)
    lm.forget_originals()
    try:
        with adapter_off(lm.model):
            attach_head(wrapped, engine, train, config)
            equal_before = _equal(before, _logits(engine, probe_batch))
        targets = targets_of(wrapped, engine, fixed, config)
        loss_first = measure(engine, fixed, targets, config, head_of(wrapped))["loss"]
        with engine.starting_from(trunk.get()):
            what = f"training, seed {seed}"
            result = train_adapter(wrapped, engine, train, select, config, seed, folder, what, learned, log)
        with adapter_off(lm.model):
            equal_after = _equal(before, _logits(engine, probe_batch))
        change = max(
            float((a.float() - b.float()).abs().max())
            for a, b in zip(_logits(engine, probe_batch), before, strict=True)
        )
        if not (equal_before and equal_after):
            raise ModelError(
                "with the adapter off the model differs from the untouched model; this kind cannot be used"
            )
        loss_last = measure(engine, fixed, targets, config, head_of(wrapped))["loss"]
        changed = drift(wrapped, lm.model, measured)
        if not all(math.isfinite(value) for value in (loss_first, loss_last, change, *changed.values())):
            raise ModelError(
                "the trained adapter's loss or its drift on neutral text is not finite; use model.dtype=bf16 or fp32, or a lower adapter.lr"
            )
        if processes.is_main():
            save_adapter(wrapped, model, folder / "adapter", detach_head(wrapped))
    finally:
        detach(wrapped)
    best = next((e for e in result.epochs if e["epoch"] == result.best_epoch), {})
    return {
        "seed": seed,
        "model": lm.name,
        "model_fingerprint": lm.fingerprint,
        "config": config.model_dump(),
        "result": result.to_json(),
        "off_equal": equal_before and equal_after,
        "on_difference": change,
        "loss_first": loss_first,
        "loss_last": loss_last,
        "met": {name: best.get(name, math.nan) for name in ("loss", "accuracy", "coverage")},
        "drift": changed,
        "seconds": time.monotonic() - started,
    }


class SharedLowerBlocks:
    """The blocks below an adapter over all prompts: run once for all seeds, if any adapter needs them.

    Without blocks below there is none. What another pass computes on its way can be kept by `trunk.listening`.
    """

    def __init__(self, engine: Engine, ids: Sequence[Sequence[int]], lowest: int) -> None:
        self.engine, self.start = engine, lowest
        self.trunk = LowerBlockCache(lowest, engine, engine.plan(ids)) if lowest else None

    def get(self) -> LowerBlockCache | None:
        if self.trunk is not None:
            self.trunk.collect(self.engine)
        return self.trunk


def record_adapted(
    lm: LanguageModel,
    engine: Engine,
    adapter: TrainedAdapter,
    encoded: Encoded,
    base: HiddenStates,
    trunk: SharedLowerBlocks,
) -> HiddenStates:
    """Hidden states and answers with the adapter on, on all layers of `base`; those that no adapted block has
    touched are the base's own. The model is left without adapter."""
    layers = [layer for layer in base.layers if layer > trunk.start or not trunk.start]
    weights = digest(lm.fingerprint, adapter.key)
    with adapter_loaded(lm, adapter.folder):
        what = f"adapter on, seed {adapter.seed}"
        states = record(engine, encoded, weights, layers, what, trunk=trunk.get if trunk.start else None)
    return replace(states, below=base)


@torch.no_grad()
def _logits(engine: Engine, batches) -> list[torch.Tensor]:
    return [engine.run(batch, states=False).logits.clone() for batch in batches]


def _equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
