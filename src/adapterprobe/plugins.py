"""Probes, adapters and data sets that installed packages bring: found by entry points, loaded when a name is first looked up."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

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
