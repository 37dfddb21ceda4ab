"""One run for every combination of settings, and one report of them all."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from adapterprobe.cache import write_atomic
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.errors import AdapterProbeError, ConfigError, OutputError
from adapterprobe.output_folder import MARK, in_todays_names
from adapterprobe.output_lock import output_lock
from adapterprobe.pipeline.compare import compare
from adapterprobe.pipeline.relation_draws import relation_splits
from adapterprobe.pipeline.run import run
from adapterprobe.progress import say
from adapterprobe.safe_yaml import YamlError, parse_yaml
from adapterprobe.small_files import read_json

GRID = "grid.json"


def axis_of(text: str) -> tuple[str, list]:
    """`key=[a, b]` as the key and its values.

    Raises:
        ConfigError: not of that form, or fewer than two values.
    """
    key, equals, values = text.partition("=")
    try:
        listed = parse_yaml(values) if equals else None
    except YamlError:
        listed = None
    if not isinstance(listed, list) or len(listed) < 2 or not key:
        raise ConfigError(
            f"--grid expects a key with at least two values, got '{text}'; for example --grid adapter.kind=[lora,ia3]"
        )
    return key, listed


def combinations(
    source: str | Path | None,
    overrides: Sequence[str],
    grid: Sequence[str],
    transfer: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    trust_remote_code: bool = False,
    relations: Sequence[int] = (),
    draws: int = 3,
    labels: int | None = None,
) -> dict[str, RunConfig]:
    """The configuration of every cell by its name, all checked before any is run.

    Args:
        grid: texts `key=[a, b]`.
        transfer: data sets, each trained on alone and judged on all the others.
        leave_out: data sets, each judged on after training on all the others.
        trust_remote_code: see `read_config`.
        relations, draws, labels: see `relation_splits`.

    Raises:
        ConfigError: an axis that cannot be read, several ways of dealing out the data, or a cell that is no configuration.
    """
    axes = [axis_of(text) for text in grid]
    if sum(map(bool, (transfer, leave_out, relations))) > 1:
        raise ConfigError(
            "--transfer, --leave-one-out and --relations are ways of dealing out the data; give one of them"
        )
    named = [str(name) for name in (transfer or leave_out)]
    if named and (len(set(named)) < 2 or len(set(named)) != len(named)):
        raise ConfigError(
            f"{'--transfer' if transfer else '--leave-one-out'} needs at least two different data sets, got {named}"
        )
    splits: list[tuple[str, list[str]]] = [("", [])]
    if named:
        splits = []
        for name in named:
            others = [other for other in named if other != name]
            train, ood = ([name], others) if transfer else (others, [name])
            label = f"train={_short(name)}" if transfer else f"without={_short(name)}"
            splits.append((label, [f"data.train={json.dumps(train)}", f"data.ood={json.dumps(ood)}"]))
    if relations:
        splits = relation_splits(read_config(source, list(overrides), trust_remote_code), relations, draws, labels)
    found = {}
    for (label, data), values in itertools.product(splits, itertools.product(*[v for _, v in axes])):
        mine = [f"{key}={json.dumps(value)}" for (key, _), value in zip(axes, values, strict=True)]
        parts = [label] if label else []
        parts += [f"{key.rsplit('.', 1)[-1]}={_short(value)}" for (key, _), value in zip(axes, values, strict=True)]
        name = re.sub(r"[^\w.=+,-]+", "_", ",".join(parts))
        while name in found:
            name += "'"
        found[name] = read_config(source, [*overrides, *data, *mine], trust_remote_code)
    return found


def _short(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(_short, value))
    return PurePath(value).name if isinstance(value, str) and value else str(value)


RunCells = Callable[[Mapping[str, RunConfig], Path], Iterable[tuple[str, str | None]]]
"""Runs every cell in a folder of its own under the one that is given, and tells of each as it ends: its name, and the reason if it failed."""


def run_in_turn(cells: Mapping[str, RunConfig], out: Path) -> Iterator[tuple[str, str | None]]:
    """One cell after the other, in this process."""
    for number, (name, config) in enumerate(cells.items(), 1):
        say(f"--- {number} of {len(cells)}: {name}")
        try:
            run(config, out / name)
        except AdapterProbeError as error:
            yield name, " ".join(str(error).split())
        else:
            yield name, None


def run_grid(
    cells: dict[str, RunConfig], out: str | Path, run_cells: RunCells = run_in_turn
) -> tuple[Path, list[dict]]:
    """Run every cell in a folder of its own, then compare them. A cell that fails is told of, and the others go on.

    Args:
        run_cells: how they are run.

    Returns:
        The report, and the cells that failed.

    Raises:
        OutputError: the folder holds something else, or fewer than two cells came through.
    """
    with output_lock(out) as folder:
        return _run_grid(cells, folder, run_cells)


def _run_grid(cells: dict[str, RunConfig], out: Path, run_cells: RunCells) -> tuple[Path, list[dict]]:
    wanted = {name: config.model_dump(mode="json") for name, config in cells.items()}
    mark = out / GRID
    if (out / MARK).exists() or (out.is_dir() and any(out.iterdir()) and not mark.is_file()):
        raise OutputError(f"{out} is not empty and not a grid of ours; choose another --out")
    recorded = read_json(mark, "the record of the grid") if mark.is_file() else None
    if recorded is not None and {name: in_todays_names(cell) for name, cell in recorded.items()} != wanted:
        raise OutputError(f"{out} holds another grid; choose another --out, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(mark, json.dumps(wanted))
    except OSError as error:
        raise OutputError(f"cannot write to {out} ({error.strerror}); choose another with --out") from error
    failed = []
    for name, reason in run_cells(cells, out):
        if reason is not None:
            say(f"{name} failed: {reason}")
            failed.append({"run": name, "reason": reason})
    # In the order of the grid, whichever ended first.
    lost = {f["run"] for f in failed}
    done = [out / name for name in cells if name not in lost]
    if len(done) < 2:
        raise OutputError(
            f"{len(done)} of {len(cells)} runs came through, at least 2 are needed for a comparison; "
            + "; ".join(f"{f['run']}: {f['reason']}" for f in failed)
        )
    return compare(done, out, failed), failed
