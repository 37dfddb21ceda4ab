"""Adapters on disk: PEFT's layout (which `PeftModel.from_pretrained` loads), and which model they were made for."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from adapterprobe.adapters.attach import follow_base, strip
from adapterprobe.adapters.detect_head import HEAD, DetectHead, save_head
from adapterprobe.adapters.kinds import keeps_full_precision, looks_at_weights
from adapterprobe.adapters.on_off import adapter_merged, tuner_layers
from adapterprobe.adapters.residual_adapter import ResidualAdapter, is_residual, load_residual
from adapterprobe.adapters.untrusted import (
    CONFIG,
    WEIGHTS,
    changes_the_base,
    check_adapter_config,
    check_no_whole_weights,
    read_adapter_config,
)
from adapterprobe.cache import changed_files, checksums, digest, file_digest, write_atomic
from adapterprobe.errors import ModelError
from adapterprobe.models import LanguageModel
from adapterprobe.models.placement import hooks_left_alone, is_offloaded, weights_here
from adapterprobe.progress import say
from adapterprobe.small_files import read_json
from adapterprobe.terminal import reason_of

MADE_FOR = "made_for.json"


def base_model_record(lm: LanguageModel) -> dict[str, str]:
    """What is recorded of an adapter's model; to be asked for while no adapter is attached."""
    return {"model": lm.name, "fingerprint": lm.fingerprint, "vectors": lm.vectors_hash}


def save_adapter(wrapped, model: dict[str, str], folder: Path, head: DetectHead | None = None) -> None:
    """Write an adapter with what is recorded of its model (see `base_model_record`), and the head that was trained with it."""
    if isinstance(wrapped, ResidualAdapter):
        wrapped.model_name = model["model"]
    else:
        wrapped.peft_config["default"].base_model_name_or_path = model["model"]
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    if head is not None:
        save_head(head, folder)
    settings = folder / CONFIG
    write_atomic(settings, json.dumps(_ordered(json.loads(settings.read_text("utf-8"))), indent=2, sort_keys=True))
    seal_adapter(folder, model)


def seal_adapter(folder: Path, model: dict) -> None:
    """Write what is recorded of an adapter's model, with checksums of the adapter as it is now."""
    sums = {name: entry for name, entry in checksums(folder).items() if name in (CONFIG, HEAD, *WEIGHTS)}
    write_atomic(folder / MADE_FOR, json.dumps(model | {"checksums": sums}, indent=1))


SETS = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "trainable_token_indices")
"""Settings that PEFT keeps as sets: the order in which they are written says nothing, and differs from process to process."""


def _ordered(config: dict) -> dict:
    """Settings with sets in order."""
    return {key: sorted(v, key=str) if key in SETS and isinstance(v, list) else v for key, v in config.items()}


def adapter_digest(folder: Path | None) -> str | None:
    """Content hash of an adapter folder's settings and weights: what is recorded with the adapter on depends on both.

    Raises:
        ModelError: there is no adapter in the folder.
    """
    if folder is None:
        return None
    settings = _ordered(read_adapter_config(folder))
    # Where it was saved from, and by which version, are no settings.
    kept = {key: value for key, value in settings.items() if key not in ("base_model_name_or_path", "peft_version")}
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin") and p.is_file())
    return digest(kept, [(path.name, file_digest(path)) for path in files])


def _check_made_for(lm: LanguageModel, folder: Path, config: dict) -> None:
    """Compare what is recorded of the adapter's model with the one at hand.

    Raises:
        ValueError: it was made for another one, or its files have changed.
    """
    if not (folder / MADE_FOR).is_file():
        # Trained elsewhere: only shapes can be compared.
        named = config.get("base_model_name_or_path")
        mine = {lm.name, str(lm.source)}
        if named and not {str(named), Path(str(named)).name} & (mine | {Path(str(lm.source)).name}):
            say(f"the adapter in {folder} says that it was trained on {named}; here it is put on {lm.name}")
        return
    recorded = read_json(folder / MADE_FOR, "the record of the adapter", error=ModelError, remedy="take it from a copy")
    changed = changed_files(folder, recorded.get("checksums") or {})
    if changed:
        said = "; ".join(f"{name} {what}" for name, what in changed.items())
        raise ValueError(f"{said}; take it from a copy, or delete {MADE_FOR} if the change was yours")
    if recorded.get("fingerprint") == lm.fingerprint:
        return
    if recorded.get("vectors") != lm.vectors_hash:
        raise ValueError(
            f"it was trained on {recorded.get('model')} with other weights (recorded {recorded.get('vectors')}, this model "
            f"has {lm.vectors_hash})"
        )
    say(
        f"the adapter in {folder} was trained on this model in another precision or with other matrices (a merged or tuned one of its kin): "
        "what it does here may differ"
    )


@contextmanager
def adapter_loaded(lm: LanguageModel, folder: Path) -> Iterator[None]:
    """Within, a saved adapter is on, at the speed of the bare model; afterwards the model is as it was.

    Raises:
        ModelError: see `loaded`.
    """
    with loaded(lm, folder), adapter_merged(lm.model):
        yield


@contextmanager
def loaded(lm: LanguageModel, folder: Path) -> Iterator[None]:
    """Within, the saved adapter is attached to the model.

    Raises:
        ModelError: it cannot be read, or does not fit the model (by shape, or by recorded hash).
    """
    from peft import PeftModel

    config = read_adapter_config(folder)
    names = [name for name, _ in lm.model.named_modules()]
    check_adapter_config(folder, config, names)
    before: dict[str, torch.Tensor] = {}
    if not is_residual(config) and changes_the_base(folder, config):
        before = {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}
        if any(parameter.device.type == "meta" for parameter in before.values()):
            raise ModelError(
                f"the adapter in {folder} changes the model's own weights, and some of them are kept in main memory or on disk between passes; "
                "load the model where all of it fits (--device), or train another kind"
            )
    try:
        _check_made_for(lm, folder, config)
        if is_residual(config):
            wrapped = load_residual(lm.model, lm.structure.blocks, lm.structure.width, folder)
        else:
            check_no_whole_weights(folder, config, [name for name, _ in lm.model.named_parameters()])
            elsewhere = _adapted_elsewhere(lm.model, config)
            if elsewhere and looks_at_weights(str(config.get("peft_type", "")), config):
                raise ValueError(
                    "it looks at the model's own weights in every pass, and some of these are kept in main memory or on disk between passes: "
                    "load the model where they have room (--device)"
                )
            with warnings.catch_warnings(record=True) as caught, hooks_left_alone(lm.model), weights_here(elsewhere):
                warnings.simplefilter("always")
                full = keeps_full_precision(str(config.get("peft_type", "")))
                wrapped = PeftModel.from_pretrained(lm.model, str(folder), autocast_adapter_dtype=full).eval()
                if not tuner_layers(lm.model):
                    raise ValueError("it adapts no layer of the model, as prompt and prefix tuning do not")
                # Once more, for what it says: tensors that have no place in the model are left out without a word.
                told = wrapped.load_adapter(
                    str(folder),
                    "default",
                    autocast_adapter_dtype=full,
                    key_mapping=getattr(lm.model, "_checkpoint_conversion_mapping", None),
                )
            for layer in tuner_layers(lm.model):
                follow_base(layer)
            # PEFT only warns where a folder lacks weights for what it has just made.
            lacking = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
            if lacking:
                raise ValueError(lacking[0])
            if extra := sorted(told.unexpected_keys):
                raise ValueError(f"{len(extra)} of its tensors have no place in this model, the first is {extra[0]}")
    except Exception as error:
        strip(lm.model)
        _put_back(lm, before)
        if isinstance(error, ModelError):
            raise
        reason = reason_of(error, 300)
        raise ModelError(
            f"the adapter in {folder} does not fit the model {lm.name} ({reason}); give one that was trained on it"
        ) from error
    try:
        for parameter in wrapped.parameters():
            parameter.requires_grad_(False)
        yield
    finally:
        # PEFT's own way out leaves copies of whole modules (`modules_to_save`) in the place of the model's.
        strip(lm.model)
        wrapped.unload()
        _put_back(lm, before)


def _adapted_elsewhere(model, config: dict) -> list:
    """Modules that a PEFT configuration adapts, as it names them, and whose weights are elsewhere between passes."""
    named = config.get("target_modules")
    offloaded = {name: module for name, module in model.named_modules() if is_offloaded(module)}
    if isinstance(named, list):
        return [m for name, m in offloaded.items() if any(name == t or name.endswith(f".{t}") for t in named)]
    if isinstance(named, str) and named != "all-linear":
        return [module for name, module in offloaded.items() if re.fullmatch(named, name)]
    return list(offloaded.values())


def _put_back(lm: LanguageModel, before: dict[str, torch.Tensor]) -> None:
    """Give the model's own weights the values that they had."""
    for name, parameter in lm.model.named_parameters():
        if name in before:
            parameter.data.copy_(before[name])
