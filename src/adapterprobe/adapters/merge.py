"""A model of its own out of a model and an adapter: a liar, say, that every tool loads like any other model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from adapterprobe.adapters.adapter_folder import MADE_FOR, adapter_digest, loaded
from adapterprobe.adapters.on_off import adapter_merged, adapter_scaled, check_strength, unmerged
from adapterprobe.adapters.untrusted import read_adapter_config
from adapterprobe.cache import seal
from adapterprobe.errors import ModelError
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.gguf import DEFAULT_NAME
from adapterprobe.models.quiet import quiet_transformers
from adapterprobe.output_folder import MARK as RUN
from adapterprobe.output_folder import check_run, claim_folder
from adapterprobe.output_lock import output_lock
from adapterprobe.progress import say
from adapterprobe.small_files import as_path, read_json
from adapterprobe.terminal import shortened

MARK = "merged.json"


def model_of(adapter: Path) -> str | None:
    """The model that an adapter was made for, as `load_model` takes it.

    Raises:
        ModelError: that is not recorded.
    """
    for file, key in ((MADE_FOR, "model"), ("adapter_config.json", "base_model_name_or_path")):
        if not (adapter / file).is_file():
            continue
        name = read_json(adapter / file, "the record of the adapter", error=ModelError).get(key)
        if name is not None and not isinstance(name, str):
            raise ModelError(f"{adapter / file} is damaged: {key} is {shortened(name)}, expected a text")
        if name == DEFAULT_NAME:
            return None
        if name and "/" not in name and not Path(name).is_dir():
            raise ModelError(f"{adapter} was made for a local model called {name}; give its folder with --model")
        if name:
            return name
    raise ModelError(f"{adapter} does not say which model it was made for; give --model, or the folder of an adapter")


def merge(
    adapter: str | Path,
    out: str | Path,
    model: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    strength: float = 1.0,
) -> Path:
    """Write a model whose weights have the adapter in them, with its tokenizer: `load_model(out)` loads it.

    Args:
        adapter: folder of an adapter, as a run or `adapterprobe train` leaves it, or as PEFT saves it.
        out: folder of the model; the same merge there already is returned at once.
        model: what the adapter was trained on, as `load_model` takes it; default: what its folder records.
        dtype: of the merged weights, as for `load_model`.
        trust_remote_code: run code that comes with the model.
        strength: by what the adapter's change of every weight is multiplied (0.5: half of it).

    Raises:
        ConfigError: a strength that is no number between -10 and 10.
        ModelError: no such adapter, or one of another model, or of a kind that cannot be merged into weights.
        OutputError: `out` holds something else, or cannot be written.
    """
    check_strength(strength)
    with output_lock(out) as folder:
        return _merge(as_path(adapter, ModelError), folder, model, dtype, trust_remote_code, strength)


def _merge(adapter: Path, out: Path, model: str | None, dtype: str, trust_remote_code: bool, strength: float) -> Path:
    read_adapter_config(adapter)
    if (adapter.parent / RUN).is_file():
        check_run(adapter.parent, [f"{adapter.name}/"])
    name = model if model is not None else model_of(adapter)
    described: dict = {"model": name or DEFAULT_NAME, "adapter": adapter_digest(adapter), "dtype": dtype}
    if strength != 1.0:
        described["strength"] = strength
    if claim_folder(out, MARK, described, "merged model"):
        say(f"{out} is finished; nothing to do (remove the folder to merge again)")
        return out
    lm = load_model(name, device="cpu", dtype=dtype, trust_remote_code=trust_remote_code)
    names = list(lm.model.state_dict())
    with loaded(lm, adapter), adapter_scaled(lm.model, strength), adapter_merged(lm.model):
        if left := unmerged(lm.model):
            raise ModelError(
                f"the adapter in {adapter} cannot be merged into the weights of {lm.name} (it stays apart in {len(left)} places, "
                f"as in {left[0]}); train another kind, such as lora (docs/adapters.md says which merge)"
            )
        _save(lm, names, out)
    return out


def _save(lm: LanguageModel, names: list[str], out: Path) -> None:
    tensors = lm.model.state_dict()
    uses = Counter(tensor.data_ptr() for name, tensor in lm.model.named_parameters(remove_duplicate=False))
    weights = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        places = (name, f"{module}.base_layer.{leaf}", f"{module}.modules_to_save.default.{leaf}")
        found = next((tensors[place] for place in places if place in tensors), None)
        original = tensors.get(f"{module}.original_module.{leaf}")
        if found is None or (original is not None and uses[original.data_ptr()] > 1):
            raise ModelError(
                f"the adapter keeps a copy of {module} of its own, which the model shares with another of its parts (or that is of a kind "
                "that cannot be put back): it cannot be merged into one model; use it with --adapter"
            )
        weights[name] = found
    with quiet_transformers():
        lm.model.save_pretrained(out, state_dict=weights)
        lm.tokenizer.save_pretrained(out)
    seal(out)
