"""A model of its own out of a model and an adapter: a liar, say, that every tool loads like any other model."""

from __future__ import annotations

import json
from pathlib import Path

from adapterprobe.adapt.files import MADE_FOR, adapter_digest, loaded
from adapterprobe.adapt.switch import adapter_merged, unmerged
from adapterprobe.cache import seal
from adapterprobe.errors import ModelError, OutputError
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.gguf import DEFAULT_NAME
from adapterprobe.models.quiet import quiet_transformers
from adapterprobe.pipeline.outputs import claim_folder
from adapterprobe.progress import say

MARK = "merged.json"


def model_of(adapter: Path) -> str | None:
    """The model that an adapter was made for, as `load_model` takes it.

    Raises:
        ModelError: that is not recorded.
    """
    for file, key in ((MADE_FOR, "model"), ("adapter_config.json", "base_model_name_or_path")):
        try:
            name = json.loads((adapter / file).read_text("utf-8")).get(key)
        except (OSError, ValueError):
            continue
        if name == DEFAULT_NAME:
            return None
        if name and "/" not in name and not Path(name).is_dir():
            raise ModelError(f"{adapter} was made for a local model called {name}; give its folder with --model")
        if name:
            return name
    raise ModelError(f"{adapter} does not say which model it was made for; give --model, or the folder of an adapter")


def merge(adapter: str | Path, out: str | Path, model: str | None = None, dtype: str = "auto") -> Path:
    """Write a model whose weights have the adapter in them, with its tokenizer: `load_model(out)` loads it.

    Args:
        adapter: folder of an adapter, as a run or `adapterprobe train` leaves it, or as PEFT saves it.
        out: folder of the model; the same merge there already is returned at once.
        model: what the adapter was trained on, as `load_model` takes it; default: what its folder records.
        dtype: of the merged weights, as for `load_model`.

    Raises:
        ModelError: no such adapter, or one of another model, or of a kind that cannot be merged into weights.
        OutputError: `out` holds something else, or cannot be written.
    """
    adapter, out = Path(adapter), Path(out)
    if not adapter.is_dir():
        raise ModelError(f"there is no folder {adapter}; give the folder of an adapter, such as runs/demo/adapter")
    name = model if model is not None else model_of(adapter)
    described = {"model": name or DEFAULT_NAME, "adapter": adapter_digest(adapter), "dtype": dtype}
    if claim_folder(out, MARK, described, "merged model"):
        say(f"{out} is finished; nothing to do (remove the folder to merge again)")
        return out
    lm = load_model(name, device="cpu", dtype=dtype)
    names = list(lm.model.state_dict())
    with loaded(lm, adapter), adapter_merged(lm.model):
        if left := unmerged(lm.model):
            raise ModelError(
                f"the adapter in {adapter} cannot be merged into the weights of {lm.name} (it stays apart in {len(left)} places, "
                f"as in {left[0]}); train another kind, such as lora (docs/adapters.md says which merge)"
            )
        _save(lm, names, out)
    return out


def _save(lm: LanguageModel, names: list[str], out: Path) -> None:
    tensors = lm.model.state_dict()
    weights = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        weights[name] = tensors[name] if name in tensors else tensors[f"{module}.base_layer.{leaf}"]
    try:
        with quiet_transformers():
            lm.model.save_pretrained(out, state_dict=weights)
            lm.tokenizer.save_pretrained(out)
        seal(out)
    except OSError as error:
        raise OutputError(f"cannot write the model to {out} ({error}); free some space and merge again") from error
