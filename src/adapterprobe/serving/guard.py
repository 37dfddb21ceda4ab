"""What stands before every request: who may ask, how much, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import MutableMapping
from typing import Any

from adapterprobe.serving.errors import error_response
from adapterprobe.serving.limits import Limits
from adapterprobe.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
OPEN = ("/health",)
"""Answered without a token."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """ASGI middleware: token, host, size and time of every request, before the application sees it.

    Args:
        token: what `Authorization: Bearer` must carry; None: no token is asked for, and requests must name a loopback host (a page of
            another site that a browser was led to by DNS rebinding names that site).
    """

    def __init__(self, app: Any, token: str | None, limits: Limits, metrics: Metrics) -> None:
        self.app, self.token, self.limits, self.metrics = app, token, limits, metrics

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:
            await send({"type": "websocket.close"})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request is not taken, by its head."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.token is None:
            host = (
                headers.get("host", "").rsplit(":", 1)[0]
                if not headers.get("host", "").endswith("]")
                else headers["host"]
            )
            if host not in LOOPBACK:
                return (
                    403,
                    f"without a token this server answers to {', '.join(LOOPBACK)} alone; start it with --token-file",
                )
        elif scope["path"] not in OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, "expected the header 'Authorization: Bearer TOKEN' with this server's token"
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            return self.too_large
        if (
            scope["method"] == "POST"
            and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json"
        ):
            return 415, "expected the header 'Content-Type: application/json'"
        return None

    @property
    def too_large(self) -> tuple[int, str]:
        return 413, f"the body has over {self.limits.body_bytes:,} bytes; send fewer inputs at once"


class _Gone(Exception):
    """The client has left."""


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Any, send: Any) -> None:
        self.guard, self.scope, self.receive, self._send = guard, scope, receive, send
        self.status: int | None = None
        self.gone = asyncio.Event()

    async def send(self, message: Scope) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, status: int, text: str) -> None:
        """An error in OpenAI's form, after which the connection ends: its body may still be coming."""
        headers = {"Connection": "close"} | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
        await error_response(status, text, headers)(self.scope, self.receive, self.send)

    async def run(self) -> None:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self.guard.limits.seconds):
                await self.answer()
        except _Gone:
            self.status = 499
        except TimeoutError:
            if self.status is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self.refuse(504, f"not done within {self.guard.limits.seconds:g} s; ask for less at once")
        finally:
            self.guard.metrics.answered(self.scope["path"], self.status or 500, time.perf_counter() - begun)

    async def answer(self) -> None:
        refusal = self.guard.refusal(self.scope)
        if refusal is not None:
            return await self.refuse(*refusal)
        try:
            async with asyncio.timeout(self.guard.limits.head_seconds):
                body = await self.body()
        except TimeoutError:
            return await self.refuse(408, f"the body was not there within {self.guard.limits.head_seconds:g} s")
        if body is None:
            return await self.refuse(*self.guard.too_large)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Scope:
            if messages:
                return messages.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        app = asyncio.ensure_future(self.guard.app(self.scope, replayed, self.send))
        left = asyncio.ensure_future(self.left())
        try:
            await asyncio.wait({app, left}, return_when=asyncio.FIRST_COMPLETED)
            if not app.done():
                raise _Gone
            await app
        finally:
            for task in (app, left):
                task.cancel()
            await asyncio.gather(app, left, return_exceptions=True)

    async def body(self) -> bytes | None:
        """The whole body; None where it is too large.

        Raises:
            _Gone: the client has left.
        """
        parts, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.guard.limits.body_bytes:
                return None
            if not message.get("more_body"):
                return b"".join(parts)

    async def left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
