"""A Ray cluster: joined at `RAY_ADDRESS`, or started on this machine for as long as it is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from adapterprobe.cache import cache_root
from adapterprobe.errors import ConfigError
from adapterprobe.models.placement import DeviceMap, is_device_map

RETRIES = 3
"""Deaths of a worker that its work outlives."""
CONNECT_TIMEOUT = 10.0
"""Seconds in which a cluster must answer."""
PASSED_ON = ("HF_HOME", "HF_HUB_OFFLINE")
"""What workers are told of this process's environment, where it is set."""


def check_ray() -> None:
    """Raises `ConfigError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--on ray needs Ray, which is not installed; pip install 'adapterprobe[ray]'")


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Within, this process is connected; a cluster that was started for it is stopped at the end.

    Raises:
        ConfigError: no Ray is installed, or there is none at the address.
    """
    check_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    _connect()
    try:
        yield
    finally:
        ray.shutdown()


def _connect() -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS") or None
    _check_address(address)
    told = {"env_vars": {name: os.environ[name] for name in PASSED_ON if name in os.environ} | _cache()}
    try:
        ray.init(
            # Else Ray would join whatever was started on this machine last.
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=told,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = "on this machine" if address is None else f"at RAY_ADDRESS={address}"
        raise ConfigError(
            f"no Ray {where} ({' '.join(str(error).split())[:200]}); start one (`ray start --head`), or leave RAY_ADDRESS out for one of "
            "this machine alone"
        ) from error


def _cache() -> dict[str, str]:
    """Where the cache is, if somebody said so."""
    said = any(os.environ.get(name) for name in ("ADAPTERPROBE_CACHE", "XDG_CACHE_HOME"))
    return {"ADAPTERPROBE_CACHE": str(cache_root().resolve())} if said else {}


def _check_address(address: str | None) -> None:
    """Whether anybody listens there: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray at RAY_ADDRESS={address} ({error}); start one (`ray start --head`), or leave RAY_ADDRESS out for one of this machine alone"
        ) from error


def resources_of(name: str, device: DeviceMap, parts: int) -> dict[str, float]:
    """What one of several equal parts of the work is given: a GPU where there are any (all of a machine's, where its model is spread over
    them), else its share of the cores, as far as one machine has them.

    Raises:
        ConfigError: one device is named where there are GPUs to be dealt out, or the cluster has no core.
    """
    nodes = _nodes()
    if with_gpus := _with_gpus(nodes, device):
        if isinstance(device, str) and ":" in device:
            raise ConfigError(
                f"{name}: the device {device} is named, and on Ray a worker sees the devices that it is given alone; set it to auto"
            )
        many = _gpus_of_one(device, with_gpus)
        enough = [node for node in with_gpus if node["GPU"] >= many]
        return {"num_gpus": many, "num_cpus": min(int(node.get("CPU", 0) * many // node["GPU"]) for node in enough)}
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if most < 1:
        raise ConfigError("the Ray cluster has no core for a run: start it with some (`ray start --head --num-cpus N`)")
    return {"num_cpus": max(1, min(most, int(sum(node.get("CPU", 0) for node in nodes)) // parts))}


def usual_workers(device: DeviceMap) -> int:
    """How many workers hold a model of their own where nobody says: one for each GPU (or machine with some, where the model is spread over
    them), else one for each machine."""
    nodes = _nodes()
    if with_gpus := _with_gpus(nodes, device):
        many = _gpus_of_one(device, with_gpus)
        return max(1, sum(int(node["GPU"]) // many for node in with_gpus))
    return max(1, sum(node.get("CPU", 0) >= 1 for node in nodes))


def fitting(resources: dict[str, float], count: int) -> dict[str, float]:
    """The resources with so few cores that so many workers, who hold them for as long as they live, have room beside each other.

    Raises:
        ConfigError: they have none.
    """
    found = dict(resources)
    while (room := _room(found)) < count and found["num_cpus"] > 1:
        found["num_cpus"] -= 1
    if room < count:
        raise ConfigError(
            f"--workers {count}: the Ray cluster has room for {room}; ask for fewer, or start it with more cores or GPUs"
        )
    return found


def _room(resources: dict[str, float]) -> int:
    wanted = [(resource.removeprefix("num_").upper()[:-1], count) for resource, count in resources.items() if count]
    return sum(int(min(node.get(resource, 0) // count for resource, count in wanted)) for node in _nodes())


def _nodes() -> list[dict]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _with_gpus(nodes: list[dict], device: DeviceMap) -> list[dict]:
    """Machines whose GPUs are dealt out; none where the CPU is asked for."""
    return [] if device == "cpu" else [node for node in nodes if node.get("GPU", 0) >= 1]


def _gpus_of_one(device: DeviceMap, with_gpus: list[dict]) -> int:
    return max(int(node["GPU"]) for node in with_gpus) if is_device_map(device) else 1


def shown(resources: dict[str, float]) -> str:
    """Resources as people say them."""
    return " and ".join(f"{int(count)} {name.removeprefix('num_').upper()[:-1]}" for name, count in resources.items())


def work_here(started_in: str) -> None:
    """In a worker: go where the work was started, so that paths mean the same.

    Raises:
        ConfigError: there is no such folder.
    """
    if not Path(started_in).is_dir():
        raise ConfigError(
            f"this machine has no {started_in}, where this was started: paths would mean something else; share the folder"
        )
    os.chdir(started_in)
