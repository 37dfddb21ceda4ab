"""Adapters on disk: PEFT's layout (which `PeftModel.from_pretrained` loads), and which model they were made for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterprobe.adapt.attach import strip
from adapterprobe.adapt.kinds import keeps_full_precision
from adapterprobe.adapt.residual import LinearAdapter, is_linear, load_linear
from adapterprobe.adapt.switch import tuner_layers
from adapterprobe.cache import digest, file_digest, write_atomic
from adapterprobe.errors import ModelError
from adapterprobe.models import LanguageModel
from adapterprobe.progress import say

MADE_FOR = "made_for.json"


def made_for(lm: LanguageModel) -> dict[str, str]:
    """What is recorded of an adapter's model; to be asked for while no adapter is attached."""
    return {"model": lm.name, "fingerprint": lm.fingerprint, "vectors": lm.vectors_hash}


def save_adapter(wrapped, model: dict[str, str], folder: Path) -> None:
    """Write an adapter with what is recorded of its model (see `made_for`)."""
    if isinstance(wrapped, LinearAdapter):
        wrapped.model_name = model["model"]
    else:
        wrapped.peft_config["default"].base_model_name_or_path = model["model"]
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    write_atomic(folder / MADE_FOR, json.dumps(model, indent=1))


def adapter_digest(folder: Path | None) -> str | None:
    """Content hash of an adapter folder's settings and weights."""
    if folder is None:
        return None
    files = sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "adapter_config.json"
    )
    return digest([(path.name, file_digest(path)) for path in files])


def _check_made_for(lm: LanguageModel, folder: Path) -> None:
    """Compare what is recorded of the adapter's model with the one at hand.

    Raises:
        ValueError: it was made for another one.
    """
    try:
        recorded = json.loads((folder / MADE_FOR).read_text("utf-8"))
    except (OSError, ValueError):
        # Trained elsewhere: only shapes can be compared.
        return
    if recorded.get("fingerprint") == lm.fingerprint:
        return
    if recorded.get("vectors") != lm.vectors_hash:
        raise ValueError(
            f"it was trained on {recorded.get('model')} with other weights (recorded {recorded.get('vectors')}, this model "
            f"has {lm.vectors_hash})"
        )
    say(f"the adapter in {folder} was trained on this model in another precision; its outputs may differ a little")


@contextmanager
def loaded(lm: LanguageModel, folder: Path) -> Iterator[None]:
    """Within, the saved adapter is attached to the model.

    Raises:
        ModelError: it cannot be read, or does not fit the model (by shape, or by recorded hash).
    """
    from peft import PeftModel

    try:
        _check_made_for(lm, folder)
        if is_linear(folder):
            wrapped = load_linear(lm.model, lm.structure.blocks, lm.structure.width, folder)
        else:
            peft_type = json.loads((folder / "adapter_config.json").read_text("utf-8")).get("peft_type", "")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                full = keeps_full_precision(peft_type)
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
        for parameter in wrapped.parameters():
            parameter.requires_grad_(False)
        yield
    finally:
        wrapped.unload()
