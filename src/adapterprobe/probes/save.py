"""Fitted probes as safetensors and JSON: nothing in the file can run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from adapterprobe.cache import file_digest, write_atomic
from adapterprobe.errors import CacheError
from adapterprobe.probes.base import Probe, make

FORMAT = 1


def save_probe(path: Path, probe: Probe, **about) -> None:
    """Write `path.safetensors` and `path.json` (parameters, scalars, checksum, and what `about` says)."""
    fitted = {k: v for k, v in vars(probe).items() if k.endswith("_") or k == "n_features_in_"}
    arrays = {k: np.ascontiguousarray(v) for k, v in fitted.items() if isinstance(v, np.ndarray)}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = path.with_name(path.name + ".safetensors")
    save_file(arrays, tensors)
    content = {
        "format": FORMAT,
        "probe": probe.probe_name,
        "params": probe.get_params(),
        "scalars": {k: v for k, v in fitted.items() if k not in arrays},
        "sha256": file_digest(tensors),
        "about": about,
    }
    write_atomic(path.with_name(path.name + ".json"), json.dumps(content, indent=1))


def load_probe(path: str | Path) -> tuple[Probe, dict]:
    """The fitted probe and what was noted about it.

    Raises:
        CacheError: a file is missing, was changed, or is of another version.
    """
    path = Path(path)
    tensors = path.with_name(path.name + ".safetensors")
    try:
        content = json.loads(path.with_name(path.name + ".json").read_text("utf-8"))
        checksum = file_digest(tensors)
    except (OSError, ValueError) as error:
        raise CacheError(f"no saved probe at {path} ({error})") from error
    if content.get("format") != FORMAT:
        raise CacheError(f"{path}.json has format {content.get('format')}, this version reads {FORMAT}; save it anew")
    if checksum != content["sha256"]:
        raise CacheError(f"{tensors} has changed since it was saved; save the probe anew")
    probe = make(content["probe"], **content["params"])
    for name, value in {**content["scalars"], **load_file(tensors)}.items():
        setattr(probe, name, value)
    return probe, content["about"]
