"""Workers on Ray that hold a model for as long as there is work: rows of a corpus to be scored, prompts to be replied to.

Pieces go to whoever has least to do, and come back in their order, so that what is written is what would be written without Ray, and a stopped
command goes on where it was. Ray starts a worker that dies anew, and its piece with it.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from adapterprobe.detectors.score_pieces import OpenScorer, Piece, PieceScorer, Scoring
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling, plan_writing
from adapterprobe.errors import AdapterProbeError, ConfigError, ModelError
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt
from adapterprobe.generation.rows import Reply
from adapterprobe.generation.writers import MakeWriters, ReplyWriter, TransformersWriter, model_as_asked
from adapterprobe.integrations.ray_cluster import (
    RETRIES,
    check_ray,
    connected,
    fitting,
    resources_of,
    shown,
    usual_workers,
    work_here,
)
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.placement import DeviceMap
from adapterprobe.progress import say

AHEAD = 2
"""Pieces that a worker has in hand: while one comes back it works on the next."""

Asked = TypeVar("Asked")


def check_workers(workers: int | None) -> None:
    """Raises `ConfigError` where there can be no such number of them, or Ray is not installed."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: expected at least 1")
    check_ray()


@contextlib.contextmanager
def _workers(actor: type, arguments: tuple, device: DeviceMap, count: int | None) -> Iterator[list[Any]]:
    """Within, so many actors of a class, each made with the arguments in a process of its own."""
    import ray

    with connected():
        count = count or usual_workers(device)
        resources = fitting(resources_of("--on ray", device, count), count)
        say(f"on Ray: {count} workers, {shown(resources)} for each")
        remote = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES)(actor)
        made: list[Any] = [remote.options(**resources).remote(str(Path.cwd()), *arguments) for _ in range(count)]
        try:
            yield made
        finally:
            for worker in made:
                ray.kill(worker)


def _in_order(
    workers: Sequence[Any], send: Callable[[Any, Asked], Any], pieces: Iterable[Asked]
) -> Iterator[tuple[Asked, Any]]:
    """Pieces with what workers made of them, in their order; few are ahead, however many there are.

    Raises:
        AdapterProbeError: what a worker says is wrong with the input, or that it was lost again and again.
    """
    load = [0] * len(workers)
    waiting: deque[tuple[Asked, Any, int]] = deque()
    source = iter(pieces)
    while True:
        while len(waiting) < AHEAD * len(workers) and (piece := next(source, None)) is not None:
            least = min(range(len(workers)), key=load.__getitem__)
            waiting.append((piece, send(workers[least], piece), least))
            load[least] += 1
        if not waiting:
            return
        piece, reference, worker = waiting.popleft()
        yield piece, _got(reference)
        load[worker] -= 1


def _got(reference: Any) -> Any:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    while True:
        try:
            # A short wait, so that Ctrl-C is heard.
            return ray.get(reference, timeout=1.0)
        except GetTimeoutError:
            continue
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, AdapterProbeError):
                raise type(cause)(str(cause)) from None
            raise
        except RayActorError as error:
            told = " ".join(str(error).split())[:300]
            raise ModelError(
                f"a worker on Ray was lost {RETRIES + 1} times ({told}); run the same command again to go on, with fewer --workers if memory "
                "was short"
            ) from None


class _ScoringWorker:
    """In a worker: a run's detectors, or a bundle's."""

    def __init__(self, started_in: str, opened: OpenScorer) -> None:
        self.started_in, self.opened = started_in, opened
        self.made: Any = None

    def score(self, piece: Piece) -> list[dict]:
        """Opened at the first piece: what is wrong is told by an ordinary error."""
        if self.made is None:
            work_here(self.started_in)
            self.made = self.opened()
        prompt, score = self.made
        return score([prompt(number, row) for number, row in piece])


def scored_on_ray(workers: int | None = None) -> Scoring:
    """Makes workers on Ray score pieces (see `score_file`).

    Args:
        workers: how many hold a model of their own; default: one for each GPU, else for each machine.

    Raises:
        ConfigError: no Ray is installed, or no such number of workers.
    """
    check_workers(workers)

    @contextlib.contextmanager
    def scoring(opened: OpenScorer, device: DeviceMap) -> Iterator[PieceScorer]:
        with _workers(_ScoringWorker, (opened,), device, workers) as made:
            yield lambda pieces: _in_order(made, lambda worker, piece: worker.score.remote(piece), pieces)

    return scoring


class _WritingWorker:
    """In a worker: a model that replies, with an adapter on or without one."""

    def __init__(self, started_in: str, model: dict, fingerprint: str, format_name: str, room: int) -> None:
        self.arguments = started_in, model, fingerprint, format_name, room
        self.on: tuple | None = None
        self.held = contextlib.ExitStack()
        self.writer: TransformersWriter | None = None

    def write(self, asked: list[ReplyPrompt], sampling: Sampling, adapter: Path | None, strength: float) -> list[Reply]:
        """Opened at the first prompts: what is wrong is told by an ordinary error."""
        writer = self.writer = self.writer or _opened_writer(*self.arguments)
        if self.on != (adapter, strength):
            self.on = None
            self.held.close()
            self.held.enter_context(model_as_asked(writer.lm, adapter, strength))
            self.on = adapter, strength
        return [reply for replies in writer.write(asked, sampling) for reply in replies]


def _opened_writer(started_in: str, model: dict, fingerprint: str, format_name: str, room: int) -> TransformersWriter:
    work_here(started_in)
    lm = load_model(**model)
    if lm.fingerprint != fingerprint:
        raise ModelError(
            f"a worker on Ray loads {lm.name} otherwise than this machine does (other weights, or another precision); name the precision "
            "with --dtype, and share the model's folder"
        )
    prompts = PromptWriter(lm.tokenizer, format_name, lm.context_length, lm.vocabulary, room)
    return TransformersWriter(lm, Engine(lm.model, lm.structure), prompts)


def ray_writers(model: dict, workers: int | None = None) -> MakeWriters:
    """Makes workers on Ray write the replies of `generate`: batches as they are written without it, each by one worker.

    Args:
        model: arguments of `load_model`.
        workers: how many hold a model of their own; default: one for each GPU, else for each machine.

    Raises:
        ConfigError: no Ray is installed, or no such number of workers.
    """
    check_workers(workers)

    def make(lm: LanguageModel, engine: Engine, prompts: PromptWriter, longest: int) -> RayWriters:
        return RayWriters(lm, engine, prompts, model, workers)

    return make


class RayWriters:
    """Workers that are started at the first reply, and stay to the last."""

    def __init__(
        self, lm: LanguageModel, engine: Engine, prompts: PromptWriter, model: dict, workers: int | None
    ) -> None:
        # As many together as without Ray: a reply's last digits may hang on that.
        self.rows = TransformersWriter(lm, engine, prompts).rows
        arguments = model, lm.fingerprint, prompts.format, prompts.room
        self._start = functools.partial(_workers, _WritingWorker, arguments, model.get("device") or "auto", workers)
        self._held = contextlib.ExitStack()
        self._made: list[Any] | None = None

    @contextlib.contextmanager
    def writing(self, adapter: Path | None, strength: float) -> Iterator[ReplyWriter]:
        if self._made is None:
            self._made = self._held.enter_context(self._start())
        yield _RayWriter(self._made, self.rows, adapter, strength)

    def close(self) -> None:
        """End the workers."""
        self._made = None
        self._held.close()


class _RayWriter:
    def __init__(self, workers: Sequence[Any], rows: int, adapter: Path | None, strength: float) -> None:
        self.workers, self.rows = workers, rows
        self.with_adapter = None if adapter is None else adapter.resolve(), strength

    def write(self, prompts: Sequence[ReplyPrompt], sampling: Sampling) -> Iterator[list[Reply]]:
        """See `ReplyWriter`."""
        batches = plan_writing([prompt.ids for prompt in prompts], sampling, self.rows)
        pieces = ([prompts[place] for place in batch] for batch in batches)
        for _, replies in _in_order(
            self.workers, lambda worker, asked: worker.write.remote(asked, sampling, *self.with_adapter), pieces
        ):
            yield replies
