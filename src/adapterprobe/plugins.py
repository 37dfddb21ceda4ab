"""Probes, adapters and data sets of other people: of installed packages, found by entry points and loaded when a name is first looked up, and
of Python files that are named."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from adapterprobe.errors import ConfigError
from adapterprobe.progress import say

GROUPS = {"probes": "adapterprobe.probes", "adapters": "adapterprobe.adapters", "datasets": "adapterprobe.datasets"}
"""Entry-point groups: each entry names a module, or anything in one, that registers itself when it is imported."""


@cache
def load_plugins(what: str) -> tuple[str, ...]:
    """Import what installed packages offer of a sort (`probes`, `adapters`, `datasets`), once a process; its names.

    One that cannot be imported is told and left out: it must not stop what does not need it.
    """
    loaded = []
    for entry in entry_points(group=GROUPS[what]):
        package = entry.dist.name if entry.dist is not None else entry.value
        try:
            entry.load()
        except Exception as error:
            # Other people's code may fail in any way.
            say(
                f"{what}: '{entry.name}' of the package {package} is left out, as it cannot be imported ({type(error).__name__}: {str(error)[:160]})"
            )
        else:
            loaded.append(entry.name)
    return tuple(loaded)


def import_file(path: str) -> None:
    """Run a Python file for what it registers.

    Raises:
        ConfigError: it is not there, or fails.
    """
    spec = importlib.util.spec_from_file_location(f"adapterprobe_own_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"--import {path}: there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"--import {path} fails: {type(error).__name__}: {error}") from error
