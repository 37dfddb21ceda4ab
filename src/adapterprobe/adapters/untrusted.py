"""An adapter's folder from anywhere: what in it could hang, fill the memory, or mean another model than the one at hand."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterprobe.errors import ModelError
from adapterprobe.small_files import TEXT_LIMIT, read_json
from adapterprobe.terminal import shortened

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
LARGEST_RANK = 65_536
PATTERN_SECONDS = 5
_SIGNS = re.compile(r"[*+?{(|\[]")
_REFUSED = {
    "layer_replication": "it repeats blocks of the model, whose layers then have other numbers",
    "alora_invocation_tokens": "it is on behind its invocation tokens alone, which no prompt here has",
}
"""Settings of PEFT with which states and answers would not mean what they are recorded as."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` of a folder.

    Raises:
        ModelError: the folder holds no adapter, or its files are not plain files.
    """
    remedy = "give a folder that PEFT saved, such as the adapter/ of a run"
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}; {remedy}")
    if not (folder / CONFIG).is_file():
        raise ModelError(f"no adapter in {folder} ({CONFIG} is missing); {remedy}")
    content = read_json(folder / CONFIG, "the adapter's settings", error=ModelError, remedy=remedy, limit=TEXT_LIMIT)
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise ModelError(f"no adapter in {folder} (none of {', '.join(WEIGHTS)} is a file); {remedy}")
    return content


def check_adapter_config(folder: Path, config: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Whether PEFT may be given these settings.

    Args:
        modules: names of the model's modules, that patterns are held against.

    Raises:
        ModelError: what is refused, and why.
    """
    if str(config.get("peft_type")).upper() == "XLORA":
        raise ModelError(
            f"the adapter in {folder} cannot be used: X-LoRA names other folders to be loaded; give one adapter"
        )
    for name, why in _REFUSED.items():
        if config.get(name):
            raise ModelError(f"the adapter in {folder} cannot be used: {name} is set, so {why}")
    ranks = [config.get(name) for name in ("r", "rank", "init_r", "target_r", "num_vectors")]
    pattern = config.get("rank_pattern")
    ranks += list(pattern.values()) if isinstance(pattern, Mapping) else []
    large = [rank for rank in ranks if isinstance(rank, (int, float)) and rank > LARGEST_RANK]
    if large:
        raise ModelError(f"the adapter in {folder} has the rank {shortened(large[0])}, at most {LARGEST_RANK} is taken")
    check_patterns(f"the adapter in {folder}", config, modules)


def check_patterns(what: str, config: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Whether the regular expressions in an adapter's settings come to an end: they are tried on all module names in another
    process, since one that backtracks without end cannot be stopped in this one.

    Raises:
        ModelError: one takes longer than `PATTERN_SECONDS`, or is none.
    """
    patterns = []
    for name in ("target_modules", "exclude_modules", "target_parameters", "modules_to_save"):
        if isinstance(config.get(name), str):
            patterns.append(config[name])
    layers = config.get("layers_pattern")
    for part in [layers] if isinstance(layers, str) else layers if isinstance(layers, list) else []:
        patterns.append(rf".*\.[^.]*{part}\.(\d+)\.")
    for name in ("rank_pattern", "alpha_pattern"):
        keys = config.get(name)
        patterns += (
            [rf"(.*\.)?({key})$" for key in keys if isinstance(key, str) and _SIGNS.search(key)]
            if isinstance(keys, Mapping)
            else []
        )
    patterns = [pattern for pattern in patterns if _SIGNS.search(pattern)]
    if not patterns:
        return
    code = (
        "import json, re, sys\n"
        "patterns, names = json.load(sys.stdin)\n"
        "for pattern in patterns:\n"
        "    compiled = re.compile(pattern)\n"
        "    for name in names:\n"
        "        compiled.fullmatch(name), compiled.match(name)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            input=json.dumps([patterns, list(modules)]),
            capture_output=True,
            text=True,
            timeout=PATTERN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{what} names modules by a regular expression that takes more than {PATTERN_SECONDS} s on this model's: "
            f"{shortened(max(patterns, key=len))}; list the modules' names instead"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise ModelError(f"{what} names modules by what is no regular expression ({reason[:120]})")


def weight_names(folder: Path) -> list[str]:
    """Names of the tensors in an adapter's folder; nothing in the file is run.

    Raises:
        ModelError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                return list(file.keys())
        import torch

        content = torch.load(path, map_location="meta", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError(f"expected names and tensors, got {type(content).__name__}")
        return [str(key) for key in content]
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"the adapter's weights {path} are damaged ({str(error)[:120]}); take them from a copy"
        ) from error


def changes_the_base(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether PEFT writes into the model's own weights when it loads the adapter: biases that are trained with it, embeddings under
    it, starting weights that are taken out of the model (PiSSA, OLoRA ...)."""
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() != "gaussian":
        return True
    if config.get("bias", "none") != "none":
        return True
    return any(".base_layer." in name for name in weight_names(folder))


def check_no_whole_weights(folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Whether the file holds weights of the model itself beside the adapter's: loaded, they would stay with the adapter off.

    Args:
        names: of the model's own weights.

    Raises:
        ModelError: names them.
    """
    saved = {str(module) for module in config.get("modules_to_save") or []}
    own = set(names)
    whole = [
        key
        for key in (key.removeprefix("base_model.model.") for key in weight_names(folder))
        if key in own
        and not any(key.startswith(f"{m}.") or f".{m}." in key for m in saved)
        # Biases that were trained beside the adapter are taken back afterwards (see `changes_the_base`).
        and not (config.get("bias", "none") != "none" and key.endswith(".bias"))
    ]
    if whole:
        raise ModelError(
            f"the adapter in {folder} holds {len(whole)} whole weights of its model beside its own ({', '.join(whole[:3])}), which would "
            "stay with the adapter off; save it with save_embedding_layers=False, or merge it"
        )
