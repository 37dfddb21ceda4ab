"""Kinds of adapter of one's own, beside those of our table."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from adapterprobe.adapters.kinds import KINDS, AdapterSpec, Update
from adapterprobe.errors import ConfigError
from adapterprobe.plugins import load_plugins


def register_adapter(name: str | AdapterSpec, what: str = "", rate: float = 1e-3) -> Callable[[Update], Update]:
    """Add a kind of adapter: as a decorator of what makes a module, or as an `AdapterSpec` of a tuner that PEFT has.

    The module is put on the residual stream after every chosen block: h + f(h). It takes and gives states of batch x positions x
    width, and gives nought before it is trained (so that switched on, too, the model starts as it was)::

        @ap.register_adapter("bottleneck", what="two thin layers", rate=1e-3)
        def bottleneck(width, config):
            up = torch.nn.Linear(config.rank, width)
            torch.nn.init.zeros_(up.weight), torch.nn.init.zeros_(up.bias)
            return torch.nn.Sequential(torch.nn.Linear(width, config.rank), torch.nn.GELU(), up)

    Args:
        name: what `adapter.kind` calls it; or the whole specification.
        what: a line for `adapterprobe train --list`.
        rate: peak learning rate that suits it.

    Raises:
        ConfigError: there is another kind of that name.
    """
    if isinstance(name, AdapterSpec):
        _add(name)
        return lambda update: update

    def add(update: Update) -> Update:
        _add(
            AdapterSpec(
                name,
                what or (inspect.getdoc(update) or "").split("\n")[0],
                "",
                rank="rank",
                alpha="alpha",
                dropout="dropout",
                rate=rate,
                targets="blocks",
                merges=False,
                module=update,
            )
        )
        return update

    return add


def _add(spec: AdapterSpec) -> None:
    known = KINDS.get(spec.name)
    if known is not None and getattr(known.module, "__qualname__", None) != getattr(spec.module, "__qualname__", ""):
        raise ConfigError(f"there is a kind of adapter called '{spec.name}' already ({known.what})")
    KINDS[spec.name] = spec


def adapter_kinds() -> dict[str, AdapterSpec]:
    """All kinds by name, with those that installed packages bring."""
    load_plugins("adapters")
    return KINDS
