"""Train one adapter, and say what it does: `adapterprobe train`."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.attach import target_names
from adapterprobe.adapters.cached_training import SharedLowerBlocks, trained_adapter
from adapterprobe.adapters.detect_head import adapted_blocks
from adapterprobe.adapters.preflight import check_adapter, training_prompts
from adapterprobe.adapters.sharding import check_sharding, fsdp_requested, shard
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.engine import Engine
from adapterprobe.errors import DataError, OutputError
from adapterprobe.knowledge import measure_knowledge
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.hardware import dtype_name, pick_device, pick_dtype
from adapterprobe.models.load import describe
from adapterprobe.models.placement import is_sharded
from adapterprobe.output_folder import (
    changed_since,
    enter_run_folder,
    finish,
    provenance,
    write_config,
    write_json,
)
from adapterprobe.output_lock import output_lock
from adapterprobe.pipeline.judged_replies import judged_replies, judged_taught
from adapterprobe.pipeline.run_summary import peak_memory_gib
from adapterprobe.pipeline.train_replies import check_replies, learned_replies
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.reading import reading_found
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.small_files import as_path, read_json

LEARNED = ("adapter-train", "select")
LEARNED_GROUPS = "learned_groups"
"""In `train.json` of a training on replies: the groups that its adapter was trained and stopped on, and those that it was taught."""


@dataclass(frozen=True)
class Training:
    """A finished training, read from its folder."""

    folder: Path

    @property
    def about(self) -> dict:
        return json.loads((self.folder / "train.json").read_text("utf-8"))

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"


def groups_learned_by(folder: str | Path) -> tuple[str, ...]:
    """The groups that a training on replies learned from, so that others can be asked for.

    Raises:
        DataError: the folder is none of such a training.
    """
    file = as_path(folder, DataError) / "train.json"
    told = read_json(file, "the record of a training", error=DataError, remedy="give a folder of `adapterprobe train`")
    groups = told.get(LEARNED_GROUPS)
    if not isinstance(groups, list):
        raise DataError(
            f"{file} does not say what its adapter learned from; give a folder that `adapterprobe train --target reply` made (of this version)"
        )
    return tuple(map(str, groups))


def _loaded(config: RunConfig) -> LanguageModel:
    """The model, its blocks shared out among the processes where that is asked for."""
    settings: dict[str, Any] = config.model.arguments()
    if fsdp_requested():
        device = pick_device(str(config.model.device))
        settings |= {"device": "cpu", "dtype": dtype_name(pick_dtype(config.model.dtype, device))}
        lm = load_model(**settings)
        target_names(lm.model, lm.structure, config.adapter)
        shard(lm, device)
        return lm
    return load_model(**settings)


def train(config: RunConfig, out: str | Path, lm: LanguageModel | None = None) -> Training:
    """Train the adapter of `config.adapter` on the splits adapter-train and select of `config.data`, for the first seed.

    It is the very adapter that a run of the same configuration trains, and finds in the cache. Under `torchrun` (or
    `accelerate launch` on GPUs) the steps are shared out among the processes.

    Args:
        lm: the model, where it is loaded already (`config.model` then only names it).

    Raises:
        AdapterProbeError: whatever the input or the environment makes impossible, before training where that can be known.
    """
    out = Path(out)
    config = reading_found(config)
    check_adapter(config.adapter)
    check_sharding(config)
    with output_lock(out) if processes.is_main() else contextlib.nullcontext():
        return _train(config, out, lm)


def _answers(config: RunConfig, questions, lm: LanguageModel, engine: Engine) -> tuple[Encoded, Encoded, Encoded]:
    """(all prompts of the learned splits, those that are learned from, those that training is stopped by)."""
    prompts, belief_prompts = prepare_prompts(config, questions, lm.tokenizer, lm.context_length)
    encoded = encode(lm.tokenizer, [p for p in prompts if p.split in LEARNED], lm.context_length, lm.vocabulary)
    belief = None
    if config.adapter.train_on != "all":
        belief = measure_knowledge(lm, engine, belief_prompts.only(LEARNED))
    return encoded, *training_prompts(config, encoded, belief)


def _train(config: RunConfig, out: Path, lm: LanguageModel | None) -> Training:
    main = processes.is_main()
    finished = False
    if main and (left := enter_run_folder(out, config)) is not None:
        changed = changed_since(out, left)
        finished = (out / "train.json").is_file() and not changed
        if not finished:
            said = "; ".join(f"{name} {what}" for name, what in list(changed.items())[:3]) or "train.json is missing"
            say(f"{out} was finished, but is not as it was left ({said}); it is made again")
    if processes.broadcast_bool(finished):
        done = Training(out)
        if lm is not None and done.about.get("model_fingerprint") != lm.fingerprint:
            raise OutputError(
                f"{out} holds an adapter of another model called '{lm.name}' (other weights or tokenizer); choose another folder"
            )
        return done
    says = config.adapter.target == "reply"
    questions = None if says else prepare_questions(config)
    if says:
        check_replies(config)
    if lm is None:
        lm = _loaded(config)
    if not fsdp_requested():
        target_names(lm.model, lm.structure, config.adapter)
    engine = Engine(lm.model, lm.structure)
    replies = None
    if questions is None:
        replies = learned_replies(config, lm, engine)
        learned, select = replies.train, replies.select
        everything = [*learned.ids, *select.ids]
    else:
        encoded, learned, select = _answers(config, questions, lm, engine)
        everything = list(encoded.ids)
    trunk = SharedLowerBlocks(engine, everything, min(adapted_blocks(config.adapter, lm.structure.n_layers)))
    adapter = trained_adapter(lm, engine, learned, select, config.adapter, config.seeds[0], trunk, out / "curves")
    if not main:
        return Training(out)
    hashes = {"prompts": digest([p.prompt_id for p in learned.prompts]), "model": lm.fingerprint}
    write_config(out, config, provenance(describe(lm), hashes))
    try:
        shutil.rmtree(out / "adapter", ignore_errors=True)
        shutil.copytree(adapter.folder, out / "adapter")
    except OSError as error:
        raise OutputError(f"cannot write the adapter to {out} ({error}); free some space and train again") from error
    about = {
        "kind": config.adapter.kind,
        "objective": config.adapter.objective,
        "model": lm.name,
        "model_fingerprint": lm.fingerprint,
        "prompts": len(learned),
        "processes": processes.count(),
        "sharded": any(is_sharded(parameter) for parameter in lm.model.parameters()),
        "peak_memory_gib": peak_memory_gib(),
        **adapter.to_json(),
    }
    if replies is not None:
        about[LEARNED_GROUPS] = list(replies.learned)
        about["replies"] = judged_replies(config, lm, engine, replies.test, out / "adapter", out)
        about["taught"] = judged_taught(config, lm, engine, replies.test, out / "adapter", out)
    write_json(out, "train.json", about)
    finish(out, config)
    return Training(out)
