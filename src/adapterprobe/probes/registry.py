"""Probes by name: ours, those that users register, and scikit-learn's classifiers.

To add one of your own::

    from adapterprobe.probes import Probe, register

    @register("nearest_mean")
    class NearestMean(Probe):
        def _fit(self, X, y, sample_weight):
            self.means_ = np.stack([X[y == label].mean(0) for label in (0, 1)])

        def _decide(self, X):
            gaps = ((X[:, None] - self.means_) ** 2).sum(-1)
            return gaps[:, 0] - gaps[:, 1]

and name it in `probes=[logistic, nearest_mean]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.plugins import load_plugins
from adapterprobe.probes.base import Probe
from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.scikit import scikit_probe

P = TypeVar("P", bound="Probe")
_REGISTRY: dict[str, type[Probe]] = {}


def register(name: str) -> Callable[[type[P]], type[P]]:
    """Class decorator: make a probe available under `name`.

    Raises:
        ConfigError: another class has that name already.
    """

    def add(cls: type[P]) -> type[P]:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
            raise ConfigError(f"a probe named '{name}' exists already ({_REGISTRY[name].__qualname__})")
        cls.probe_name = name
        _REGISTRY[name] = cls
        return cls

    return add


def available() -> list[str]:
    """Names of all registered probes, with those that installed packages bring."""
    load_plugins("probes")
    return sorted(_REGISTRY)


def lookup(name: str) -> type[Probe]:
    """The class of a probe: ours, or one made of scikit-learn's classifier of that name.

    Raises:
        ConfigError: unknown name (the nearest is given).
    """
    if name not in _REGISTRY:
        load_plugins("probes")
    if name in _REGISTRY:
        return _REGISTRY[name]
    found = scikit_probe(name)
    if found is None:
        raise ConfigError(
            f"no probe '{name}'{nearest(name, available())}; there are {', '.join(available())}, and any classifier of "
            "scikit-learn by the name of its class"
        )
    return found


def make(name: str, **params) -> Probe:
    """An unfitted probe.

    Raises:
        ConfigError: unknown name (the nearest is given) or unknown parameter.
    """
    cls = lookup(name)
    try:
        return cls(**params)
    except TypeError as error:
        raise ConfigError(
            f"probe '{name}': {error}; its parameters are {', '.join(cls.parameter_names()) or 'none'}"
        ) from error


def search_space(name: str, strengths: list[float]) -> list[dict]:
    """Parameter settings that selection tries for a probe."""
    return lookup(name).candidates(sorted(strengths))


def fit_settings(
    name: str, settings: list[dict], X, y, kept=None, centring: SetCentring | None = None, **extras
) -> list[Probe]:
    """The named probe fitted in every setting (and fold, see `Probe.fit_settings`).

    Args:
        centring: of `X`, which then needs `sets` among the extras. All rows of a set are centred alike in all folds: no label is looked
            at.
    """
    cls = lookup(name)
    if centring is not None:
        X = centring.apply(X, extras.pop("sets"))
    probes = cls.fit_settings(settings, X, y, kept, **extras)
    for probe in probes:
        probe._centre(centring)
    return probes
