"""The runs of a sweep on Ray: on all cores or devices of this machine, or of a cluster.

Runs are independent already; each is one Ray task in a folder of its own. A worker that dies is replaced, and its run goes on where it was, as
after any stop.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapterprobe.cache import cache_root
from adapterprobe.config import RunConfig
from adapterprobe.errors import AdapterProbeError, ConfigError
from adapterprobe.models.placement import is_device_map
from adapterprobe.progress import bar, say

RETRIES = 3
"""Deaths of workers that a run outlives."""
CONNECT_TIMEOUT = 10.0
"""Seconds in which a cluster must answer."""
PASSED_ON = ("HF_HOME", "HF_HUB_OFFLINE")
"""What workers are told of this process's environment, where it is set."""


def check_ray() -> None:
    """Raises `ConfigError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--on ray needs Ray, which is not installed; pip install 'adapterprobe[ray]'")


def run_on_ray(
    cells: Mapping[str, RunConfig], out: Path, modules: Sequence[str] = ()
) -> Iterator[tuple[str, str | None]]:
    """Run every cell in `out/NAME`, as many at a time as the cluster has room for. `RAY_ADDRESS` names one; without it a cluster of this
    machine is started, and stopped at the end.

    Args:
        modules: Python files that every worker runs first (probes and data sets of one's own).

    Yields:
        Name of a cell that has ended, and the reason where it failed.

    Raises:
        ConfigError: no Ray is installed, or there is none at the address.
    """
    check_ray()
    import ray

    started = _connect()
    try:
        # A process for each run: what holds a device must not be handed another one.
        run_cell = ray.remote(max_calls=1)(_run_cell)
        files, here = [str(Path(file).resolve()) for file in modules], str(Path.cwd())
        resources = {name: _resources(name, config, len(cells)) for name, config in cells.items()}
        say(f"on Ray: {len(cells)} runs, {_shown(next(iter(resources.values())))} for each")
        waiting = {
            run_cell.options(name=name, max_retries=RETRIES, **resources[name]).remote(
                config, str((out / name).resolve()), files, here
            ): name
            for name, config in cells.items()
        }
        with bar(len(waiting), "runs on Ray", unit="run") as progress:
            while waiting:
                # A short wait, so that Ctrl-C is heard.
                for done in ray.wait(list(waiting), timeout=1.0)[0]:
                    name, outcome = waiting.pop(done), _outcome(done)
                    progress.update()
                    if outcome is None:
                        say(f"{name} is finished ({len(cells) - len(waiting)} of {len(cells)})")
                    yield name, outcome
    finally:
        if started:
            ray.shutdown()


def _connect() -> bool:
    """Whether a connection was made here."""
    import ray

    if ray.is_initialized():
        return False
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
    return True


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


def _resources(name: str, config: RunConfig, runs: int) -> dict[str, float]:
    """What one run is given: a GPU where there are any (all of a machine's, where its model is spread over them), else its share of the
    cores, as far as one machine has them."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    device = config.model.device
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus and device != "cpu":
        if isinstance(device, str) and ":" in device:
            raise ConfigError(
                f"{name}: model.device={device} names one device, and on Ray a run sees the devices that it is given alone; set it to auto"
            )
        many = max(int(node["GPU"]) for node in with_gpus) if is_device_map(device) else 1
        fitting = [node for node in with_gpus if node["GPU"] >= many]
        return {"num_gpus": many, "num_cpus": min(int(node.get("CPU", 0) * many // node["GPU"]) for node in fitting)}
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if most < 1:
        raise ConfigError("the Ray cluster has no core for a run: start it with some (`ray start --head --num-cpus N`)")
    return {"num_cpus": max(1, min(most, int(sum(node.get("CPU", 0) for node in nodes)) // runs))}


def _shown(resources: dict[str, float]) -> str:
    return " and ".join(f"{int(count)} {name.removeprefix('num_').upper()[:-1]}" for name, count in resources.items())


def _run_cell(config: RunConfig, folder: str, modules: Sequence[str], started_in: str) -> str | None:
    """In a worker. The reason where the run fails by what it was given."""
    if not Path(started_in).is_dir():
        return f"this machine has no {started_in}, where the sweep was started: paths would mean something else; share the folder"
    os.chdir(started_in)
    from adapterprobe.pipeline.run import run
    from adapterprobe.plugins import import_file

    try:
        for file in modules:
            import_file(file)
        run(config, folder)
    except AdapterProbeError as error:
        return " ".join(str(error).split())
    return None


def _outcome(done) -> str | None:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(done)
    except RayTaskError as error:
        cause = error.cause
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    except RayError as error:
        told = " ".join(str(error).split())[:200]
        return f"its worker was lost {RETRIES + 1} times ({told}); run the same command again to go on"
