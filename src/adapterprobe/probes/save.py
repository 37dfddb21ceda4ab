"""Fitted probes as safetensors and JSON: nothing in the file can run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import sklearn
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from adapterprobe.cache import file_digest, write_atomic
from adapterprobe.errors import CacheError, ConfigError
from adapterprobe.probes.base import Probe
from adapterprobe.probes.registry import make
from adapterprobe.probes.scikit import ScikitProbe
from adapterprobe.small_files import read_json
from adapterprobe.terminal import shortened

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
    about = path.with_name(path.name + ".json")
    remedy = "save the probe anew"
    if not about.is_file() or not tensors.is_file():
        raise CacheError(f"no saved probe at {path} ({(tensors if about.is_file() else about).name} is missing)")
    content = read_json(about, "the saved probe", error=CacheError, remedy=remedy)
    if content.get("format") != FORMAT:
        raise CacheError(
            f"{about} has format {shortened(content.get('format'))}, this version reads {FORMAT}; {remedy}"
        )
    shapes = {
        "probe": str,
        "params": dict,
        "scalars": dict,
        "tables": list,
        "versions": dict,
        "sha256": str,
        "about": dict,
    }
    for name, kind in shapes.items():
        if not isinstance(content.get(name), kind):
            raise CacheError(
                f"{about} is damaged: {name} is {shortened(content.get(name))}, expected {kind.__name__}; {remedy}"
            )
    if file_digest(tensors) != content["sha256"]:
        raise CacheError(f"{tensors} has changed since it was saved; {remedy}")
    strange = [
        n
        for n in (*content["scalars"], *content["tables"])
        if not (str(n).isidentifier() and str(n).endswith("_")) or str(n).startswith("_")
    ]
    if strange:
        raise CacheError(f"{about} is damaged: {shortened(strange[0])} is no fitted value of a probe; {remedy}")
    try:
        probe = make(content["probe"], **content["params"])
        arrays = load_file(tensors)
    except (ConfigError, SafetensorError, TypeError, ValueError, OverflowError, OSError) as error:
        raise CacheError(f"the saved probe at {path} cannot be read ({str(error)[:200]}); {remedy}") from error
    if content["versions"] != versions(probe):
        raise CacheError(
            f"{path}.json was saved with {content['versions']}, here is {versions(probe)}, which may score otherwise; fit the "
            "probe anew, or install that version"
        )
    for name in content["tables"]:
        setattr(probe, name, {})
    for name, value in {**content["scalars"], **arrays}.items():
        table, dot, key = name.partition(".")
        if dot and table in content["tables"]:
            getattr(probe, table)[key] = value
        elif name.isidentifier() and name.endswith("_"):
            setattr(probe, name, value)
        else:
            raise CacheError(f"{tensors} is damaged: {shortened(name)} is no fitted value of a probe; {remedy}")
    return probe, content["about"]
