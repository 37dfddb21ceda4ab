"""Data sets of one's own under a name: made by a function when they are first asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import pandas as pd

from adapterprobe.data.hub import hub_table
from adapterprobe.data.in_memory import Dataset
from adapterprobe.data.relations import is_relation
from adapterprobe.data.row_source import Source
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.plugins import load_plugins

Maker = Callable[[], Dataset]
_makers: dict[str, Maker] = {}


def register_dataset(name: str) -> Callable[[Maker], Maker]:
    """Decorator of a function without arguments that gives a `Dataset`: `--data NAME` then names it::

        @ap.register_dataset("rivers")
        def rivers():
            return ap.Dataset.from_pandas(pd.read_csv(HERE / "rivers.csv"), text="claim", label="true", group="river")

    The function is called once, when the name is first used.

    Raises:
        ConfigError: there is a data set of that name.
    """

    def add(maker: Maker) -> Maker:
        known = _makers.get(name)
        if is_relation(name) or name in hub_table():
            raise ConfigError(f"there is a built-in data set called '{name}'; choose another name")
        if known is not None and (known.__module__, known.__qualname__) != (maker.__module__, maker.__qualname__):
            raise ConfigError(f"there is a data set called '{name}' already ({known.__module__}.{known.__qualname__})")
        _makers[name] = maker
        return maker

    return add


def registered_names() -> list[str]:
    """Names of all registered data sets, with those that installed packages bring."""
    load_plugins("datasets")
    return sorted(_makers)


@functools.cache
def registered_dataset(name: str) -> Dataset:
    """The data set that was registered under a name.

    Raises:
        DataError: its function fails, or gives something else.
    """
    try:
        made = _makers[name]()
    except DataError:
        raise
    except Exception as error:
        # Other people's code may fail in any way.
        raise DataError(
            f"the registered data set '{name}' cannot be made ({type(error).__name__}: {str(error)[:160]})"
        ) from error
    if not isinstance(made, Dataset):
        raise DataError(
            f"the registered data set '{name}' is a {type(made).__name__}; its function must give an adapterprobe.Dataset"
        )
    return made


def registered_source(name: str) -> Source:
    """The rows of a registered data set, as a file's."""
    frame = registered_dataset(name).frame
    columns = [str(column) for column in frame.columns]

    def rows():
        for line, cells in enumerate(frame.itertuples(index=False, name=None), 1):
            row: Mapping[str, object] = {column: _cell(value) for column, value in zip(columns, cells, strict=True)}
            yield line, row

    return Source(name, columns, rows(), len(frame))


def _cell(value: object) -> object:
    """A cell as files have it: numpy's numbers as Python's, nothing as None."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # type: ignore[attr-defined]
    return None if value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value) else value
