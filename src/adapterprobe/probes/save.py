"""Fitted probes as safetensors and JSON: nothing in the file can run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import sklearn
from safetensors.numpy import load_file, save_file

from adapterprobe.cache import file_digest, write_atomic
from adapterprobe.errors import CacheError
from adapterprobe.probes.base import Probe, make
from adapterprobe.probes.scikit import ScikitProbe

FORMAT = 2


def versions(probe: Probe) -> dict[str, str]:
    """Of the libraries that take part in scoring, beside numpy: those that a probe of another library's is fitted by again."""
    return {"scikit-learn": sklearn.__version__} if isinstance(probe, ScikitProbe) else {}


def _plain(value):
    """Numbers of numpy as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def save_probe(path: Path, probe: Probe, **about) -> None:
    """Write `path.safetensors` and `path.json` (parameters, scalars, checksum, and what `about` says)."""
    fitted = {k: v for k, v in vars(probe).items() if k.endswith("_") and not k.startswith("_")}
    arrays = {k: np.ascontiguousarray(v) for k, v in fitted.items() if isinstance(v, np.ndarray)}
    tables = [k for k, v in fitted.items() if isinstance(v, dict)]
    for table in tables:
        # Named weights of a network.
        arrays |= {f"{table}.{name}": np.ascontiguousarray(v) for name, v in fitted[table].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = path.with_name(path.name + ".safetensors")
    save_file(arrays, tensors)
    content = {
        "format": FORMAT,
        "probe": probe.probe_name,
        "params": probe.get_params(),
        "scalars": {k: _plain(v) for k, v in fitted.items() if k not in arrays and k not in tables},
        "tables": tables,
        "versions": versions(probe),
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
    if content["versions"] != versions(probe):
        raise CacheError(
            f"{path}.json was saved with {content['versions']}, here is {versions(probe)}, which may score otherwise; fit the "
            "probe anew, or install that version"
        )
    for name in content["tables"]:
        setattr(probe, name, {})
    for name, value in {**content["scalars"], **load_file(tensors)}.items():
        table, dot, key = name.partition(".")
        if dot and table in content["tables"]:
            getattr(probe, table)[key] = value
        else:
            setattr(probe, name, value)
    return probe, content["about"]
