"""Adapters of a run: trained once per seed, cached by content, recorded while merged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapterprobe.adapt import TrainResult, adapter_merged, adapter_off, attach, train_adapter
from adapterprobe.adapt.attach import detach, strip
from adapterprobe.adapt.checkpoint import drop_checkpoints
from adapterprobe.adapt.kinds import keeps_full_precision
from adapterprobe.adapt.objectives import wants_positive
from adapterprobe.adapt.switch import tuner_layers
from adapterprobe.cache import digest, entry, write_atomic
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine, Trunk
from adapterprobe.errors import ModelError
from adapterprobe.hidden import HiddenStates, record
from adapterprobe.models import LanguageModel
from adapterprobe.models.encode import Encoded
from adapterprobe.progress import say

TRAINING_VERSION = 2
"""Raise when the same inputs train to another adapter."""


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


def trained_adapter(
    lm: LanguageModel,
    engine: Engine,
    train: Encoded,
    select: Encoded,
    config: AdapterConfig,
    seed: int,
    trunk: SharedTrunk,
) -> TrainedAdapter:
    """Train, or find in the cache. The model is left without adapter, as it was.

    Raises:
        ModelError: with the adapter off the model is not what it was before, which no result would survive.
    """

    def content(encoded: Encoded) -> list:
        wanted = [wants_positive(config.objective, p) for p in encoded.prompts]
        return [list(encoded.ids), [(c.positive, c.negative) for c in encoded.choices], wanted]

    key = digest(
        lm.fingerprint,
        config.model_dump(),
        seed,
        content(train),
        content(select),
        engine.share,
        TRAINING_VERSION,
    )

    def make(folder: Path) -> None:
        if (folder / "train.json").exists():
            drop_checkpoints(folder)
            return
        probe_batch = engine.plan(select.ids[:4])
        before = _logits(engine, probe_batch)
        wrapped = attach(lm.model, lm.structure, config, seed)
        try:
            with adapter_off(lm.model):
                equal_before = _equal(before, _logits(engine, probe_batch))
            with engine.starting_from(trunk.get()):
                what = f"training, seed {seed}"
                result = train_adapter(wrapped, engine, train, select, config, seed, folder, what)
            with adapter_off(lm.model):
                equal_after = _equal(before, _logits(engine, probe_batch))
            after = _logits(engine, probe_batch)
            change = max(float((a.float() - b.float()).abs().max()) for a, b in zip(after, before))
            if not (equal_before and equal_after):
                raise ModelError(
                    "with the adapter off the model differs from the untouched model; this kind cannot be used"
                )
            wrapped.peft_config["default"].base_model_name_or_path = lm.name
            wrapped.save_pretrained(folder / "adapter", save_embedding_layers=False)
            (folder / "adapter" / "README.md").unlink(missing_ok=True)
        finally:
            detach(wrapped)
        about = {
            "seed": seed,
            "model": lm.name,
            "model_fingerprint": lm.fingerprint,
            "config": config.model_dump(),
            "result": result.to_json(),
            "off_equal": equal_before and equal_after,
            "on_difference": change,
        }
        write_atomic(folder / "train.json", json.dumps(about, indent=1))
        drop_checkpoints(folder)

    folder = entry("adapters", key, make, notice=say)
    about = json.loads((folder / "train.json").read_text("utf-8"))
    return TrainedAdapter(
        seed,
        folder / "adapter",
        key,
        TrainResult(**about["result"]),
        about["off_equal"],
        about["on_difference"],
    )


class SharedTrunk:
    """The blocks below an adapter over all prompts: run once for all seeds, if any adapter needs them.

    Without blocks below there is none. What another pass computes on its way can be kept by `trunk.listening`.
    """

    def __init__(self, engine: Engine, encoded: Encoded, lowest: int) -> None:
        self.engine, self.start = engine, lowest
        self.trunk = Trunk(lowest, engine, engine.plan(encoded.ids)) if lowest else None

    def get(self) -> Trunk | None:
        if self.trunk is not None:
            self.trunk.collect(self.engine)
        return self.trunk


def record_adapted(
    lm: LanguageModel, engine: Engine, adapter: TrainedAdapter, encoded: Encoded, base: HiddenStates, trunk: SharedTrunk
) -> HiddenStates:
    """Hidden states and answers with the adapter on, on all layers of `base`; those that no adapted block has
    touched are the base's own. The model is left without adapter."""
    layers = [layer for layer in base.layers if layer > trunk.start or not trunk.start]
    weights = digest(lm.fingerprint, adapter.key)
    with loaded(lm, adapter.folder), adapter_merged(lm.model):
        what = f"adapter on, seed {adapter.seed}"
        states = record(engine, encoded, weights, layers, what, trunk=trunk.get if trunk.start else None)
    return replace(states, below=base)


@contextmanager
def loaded(lm: LanguageModel, folder: Path) -> Iterator[None]:
    """Within, the saved adapter is attached to the model.

    Raises:
        ModelError: it cannot be read, or does not fit the model.
    """
    from peft import PeftModel

    try:
        peft_type = json.loads((folder / "adapter_config.json").read_text("utf-8")).get("peft_type", "")
        full = keeps_full_precision(peft_type)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = PeftModel.from_pretrained(lm.model, str(folder), autocast_adapter_dtype=full).eval()
        # PEFT only warns where a folder lacks weights for what it has just made.
        lacking = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
        if lacking:
            raise ValueError(lacking[0])
        if not tuner_layers(lm.model):
            raise ValueError("it adapts no layer of the model, as prompt and prefix tuning do not")
    except Exception as error:
        strip(lm.model)
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the adapter in {folder} does not fit the model {lm.name} ({reason}); give one that was trained on it"
        ) from error
    try:
        for module in wrapped.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        yield
    finally:
        wrapped.unload()


@torch.no_grad()
def _logits(engine: Engine, batches) -> list[torch.Tensor]:
    return [engine.run(batch, states=False).logits.clone() for batch in batches]


def _equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
