"""Progress bars with estimates on a terminal, silence elsewhere; stage timings for the report."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from adapterprobe.terminal import printable

LOGGER = logging.getLogger("adapterprobe")


def bar(total: int | None, what: str, unit: str = "prompt", done: int = 0) -> tqdm:
    """A bar on stderr that shows itself after two seconds, and only on a terminal."""
    return tqdm(
        total=total,
        initial=done,
        desc=printable(what),
        unit=unit,
        delay=2,
        disable=not sys.stderr.isatty(),
        leave=False,
    )


def say(text: str) -> None:
    """A line for people: a message of the logger `adapterprobe`, level INFO, which the command line shows (see `messages_shown`)."""
    LOGGER.info("%s", printable(text))


class _BesideBars(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def messages_shown() -> Iterator[None]:
    """Within, what the library says stands on stderr, a line each, never mixed with a bar."""
    if any(isinstance(handler, _BesideBars) for handler in LOGGER.handlers):
        yield
        return
    handler, before, passed_on = _BesideBars(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    # Some libraries give the root logger a handler of theirs, which would say every line again.
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        LOGGER.propagate = passed_on


class Timings:
    """Wall seconds by stage, in the order in which the stages first ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, told: bool = False) -> Iterator[None]:
        """Time a stage; one that is `told` says when it begins for the first time."""
        start = time.perf_counter()
        if told and name not in self.seconds:
            say(f"{sum(self.seconds.values()):6.0f} s  {name}")
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
