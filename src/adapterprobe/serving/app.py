"""The application: routes over detectors of one model."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from adapterprobe import __version__
from adapterprobe.detectors.detector import Detector, score_all
from adapterprobe.detectors.score_rows import rows_of_table
from adapterprobe.errors import AdapterProbeError, DataError
from adapterprobe.serving.chat import Completion, Part, Reply, written
from adapterprobe.serving.errors import error_response
from adapterprobe.serving.guard import Guard
from adapterprobe.serving.limits import Limits
from adapterprobe.serving.metrics import Metrics
from adapterprobe.serving.requests import ChatRequest, ScoreRequest
from adapterprobe.serving.worker import Busy, Worker
from adapterprobe.terminal import one_line

LOGGER = logging.getLogger("adapterprobe")
PIECE = 32
"""Inputs that are scored before it is asked again whether anybody still waits for them."""


class Service:
    """What routes do.

    Args:
        detectors: of one model, by the names that requests use.
        thread: that they were loaded in (see `model_thread`); None: another than this one.
    """

    def __init__(
        self, detectors: dict[str, Detector], limits: Limits, metrics: Metrics, thread: ThreadPoolExecutor | None
    ) -> None:
        self.detectors, self.limits, self.metrics = detectors, limits, metrics
        self.worker = Worker(limits.waiting, metrics, thread)
        self.model = next(iter(detectors.values())).lm.name

    def chosen(self, names: list[str] | None) -> dict[str, Detector]:
        """Detectors by name.

        Raises:
            DataError: a name that is not served.
        """
        names = list(self.detectors) if names is None else list(dict.fromkeys(names))
        unknown = [name for name in names if name not in self.detectors]
        if unknown:
            raise DataError(f"no detector '{one_line(unknown[0])[:80]}' here; there are {', '.join(self.detectors)}")
        return {name: self.detectors[name] for name in names}

    async def score(self, body: ScoreRequest) -> dict[str, Any]:
        """A row for each input and detector."""
        chosen = self.chosen(body.detectors)
        if len(body.inputs) > self.limits.inputs:
            raise DataError(
                f"{len(body.inputs)} inputs, and this server takes {self.limits.inputs} at once; send them in several requests"
            )
        if any(isinstance(given, dict) and "role" in given for given in body.inputs):
            raise DataError(
                "'inputs' has a message where a whole conversation is expected; put conversations in a list: [[{...}, {...}]]"
            )
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}

        def job(stopped: threading.Event) -> None:
            for start in range(0, len(body.inputs), PIECE):
                if stopped.is_set():
                    return
                try:
                    tables = score_all(list(chosen.values()), body.inputs[start : start + PIECE])
                except DataError as error:
                    if not start:
                        raise
                    raise DataError(f"among the inputs from number {start} on: {error}") from error
                for name, table in zip(chosen, tables, strict=True):
                    found[name] += rows_of_table(table)

        await self.worker.run(job)
        for name, rows in found.items():
            self.metrics.scored(name, rows)
        return {"model": self.model, "scores": found}

    async def chat(self, body: ChatRequest) -> Response:
        """A reply, whole or as a stream."""
        chosen = self.detectors if body.model == self.model else self.chosen([body.model])
        parts = self.counted(self.worker.stream(lambda: written(chosen, body, self.limits.new_tokens)))
        # What is wrong with a request is told by its status, before a stream has begun.
        first = await anext(parts)
        completion = Completion(body.model)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(
                completion.events(_with_first(first, parts), usage), media_type="text/event-stream"
            )
        last: Part | Reply = first
        async for part in parts:
            last = part
        assert isinstance(last, Reply)
        return JSONResponse(completion.whole(last))

    async def counted(self, parts: AsyncIterator[Part | Reply]) -> AsyncIterator[Part | Reply]:
        """The same parts, counted."""
        async for part in parts:
            if isinstance(part, Part):
                self.metrics.tokens.inc()
            else:
                for name, row in part.final.items():
                    self.metrics.scored(name, [row])
            yield part

    def about(self) -> dict[str, Any]:
        """Model and detectors."""
        return {
            "status": "ok",
            "version": __version__,
            "model": self.model,
            "detectors": {
                name: {
                    "arm": d.record.arm,
                    "axis": d.record.axis,
                    "reads": d.record.read.what,
                    "threshold": d.threshold.value,
                    "verified": d.golden is not None,
                }
                for name, d in self.detectors.items()
            },
        }

    def models(self) -> dict[str, Any]:
        """OpenAI's list: the model, and each detector as a model that it alone scores."""
        names = [self.model, *(name for name in self.detectors if name != self.model)]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "adapterprobe"} for name in names],
        }


async def _with_first(first: Part | Reply, rest: AsyncIterator[Part | Reply]) -> AsyncIterator[Part | Reply]:
    yield first
    async for part in rest:
        yield part


def make_app(
    detectors: dict[str, Detector],
    token: str | None = None,
    limits: Limits | None = None,
    thread: ThreadPoolExecutor | None = None,
) -> Guard:
    """An ASGI application for detectors of one model (`POST /v1/score`, `POST /v1/chat/completions`, `GET /v1/models`, `/health`, `/metrics`).

    Args:
        detectors: by the names that requests use.
        token: what requests must carry as a bearer token; None: only requests to a loopback host are answered.
        thread: that the detectors were loaded in (see `model_thread`).
    """
    limits, metrics = limits or Limits(), Metrics()
    service = Service(detectors, limits, metrics, thread)
    # The pages of its own that FastAPI has load scripts from elsewhere.
    app = FastAPI(title="adapterprobe", version=__version__, docs_url=None, redoc_url=None)

    @app.post("/v1/score")
    async def score(body: ScoreRequest) -> JSONResponse:
        return JSONResponse(await service.score(body))

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> Response:
        return await service.chat(body)

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse(service.models())

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse(service.about())

    @app.get("/metrics")
    async def measured() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(AdapterProbeError)
    async def refused(_request: Request, error: AdapterProbeError) -> JSONResponse:
        return error_response(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        place = ".".join(str(part)[:40] for part in found["loc"][:8])
        return error_response(400, f"{place}: {found['msg']}")

    @app.exception_handler(Busy)
    async def busy(_request: Request, _error_: Busy) -> JSONResponse:
        return error_response(429, f"{limits.waiting} requests wait already; try again", {"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def other(_request: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> JSONResponse:
        LOGGER.error("a request failed", exc_info=error)
        return error_response(500, "the server failed at this request; its log says why")

    return Guard(app, token, limits, metrics)
