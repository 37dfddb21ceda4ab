"""The runs of a sweep on Ray: on all cores or devices of this machine, or of a cluster.

Runs are independent already; each is one Ray task in a folder of its own. A worker that dies is replaced, and its run goes on where it was, as
after any stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapterprobe.config import RunConfig
from adapterprobe.errors import AdapterProbeError
from adapterprobe.integrations.ray_cluster import RETRIES, connected, resources_of, shown, work_here
from adapterprobe.progress import bar, say


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
    import ray

    with connected():
        # A process for each run: what holds a device must not be handed another one.
        run_cell = ray.remote(max_calls=1)(_run_cell)
        files, here = [str(Path(file).resolve()) for file in modules], str(Path.cwd())
        resources = {name: resources_of(name, config.model.device, len(cells)) for name, config in cells.items()}
        say(f"on Ray: {len(cells)} runs, {shown(next(iter(resources.values())))} for each")
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


def _run_cell(config: RunConfig, folder: str, modules: Sequence[str], started_in: str) -> str | None:
    """In a worker. The reason where the run fails by what it was given."""
    from adapterprobe.pipeline.run import run
    from adapterprobe.plugins import import_file

    try:
        work_here(started_in)
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
