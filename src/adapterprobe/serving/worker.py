"""One thread owns the model; requests wait for it in a queue that has an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from adapterprobe.serving.metrics import Metrics

T = TypeVar("T")


def model_thread() -> ThreadPoolExecutor:
    """The thread that owns a model. Models are loaded in it: the first thread that computes has OpenMP's workers, and those of a second one go
    to sleep after every product (a fifth to a quarter slower on CPUs)."""
    return ThreadPoolExecutor(1, thread_name_prefix="model")


class Busy(Exception):
    """The queue is full."""


class Worker:
    """Runs jobs on the model one after the other.

    Args:
        waiting: jobs that may wait or run at once.
        thread: see `model_thread`.
    """

    def __init__(self, waiting: int, metrics: Metrics, thread: ThreadPoolExecutor | None = None) -> None:
        self._pool = thread or model_thread()
        self._most, self._now, self._lock = waiting, 0, threading.Lock()
        self._metrics = metrics

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._now >= self._most:
                raise Busy
            self._now += 1
            self._metrics.waiting.set(self._now)
        # The pool keeps what was dropped until its turn comes: a cell, which is then empty.
        cell = [job]
        future = self._pool.submit(lambda: cell.pop()())

        def left(_future: Future[Any]) -> None:
            cell.clear()
            self._left()

        future.add_done_callback(left)
        return future

    def _left(self) -> None:
        with self._lock:
            self._now -= 1
            self._metrics.waiting.set(self._now)

    async def run(self, job: Callable[[threading.Event], T]) -> T:
        """The result of a job. Where whoever asked has gone, a job that waits is dropped, and one that runs is told by its event.

        Raises:
            Busy: the queue is full.
        """
        stopped = threading.Event()
        future = self._submit(lambda: job(stopped))
        try:
            return await asyncio.wrap_future(future)
        finally:
            stopped.set()

    async def stream(self, job: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        """What a job yields, as it comes. Where whoever asked has gone, the job's iterator is closed at its next item.

        Raises:
            Busy: the queue is full.
        """
        loop, stopped = asyncio.get_running_loop(), threading.Event()
        made: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        def hand_over(kind: str, what: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(made.put_nowait, (kind, what))

        def pump() -> None:
            if stopped.is_set():
                return
            items = iter(job())
            try:
                for item in items:
                    if stopped.is_set():
                        return
                    hand_over("item", item)
                hand_over("end", None)
            except Exception as error:
                hand_over("error", error)
            finally:
                if (close := getattr(items, "close", None)) is not None:
                    close()

        future = self._submit(pump)
        try:
            while True:
                kind, what = await made.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise what
                yield what
        finally:
            stopped.set()
            future.cancel()
