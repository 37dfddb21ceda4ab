"""HTTP by uvicorn and h11, for clients that may never end what they send, or never read what they are sent."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient_for(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol that closes a connection which has not sent a whole head within `seconds` after it was opened, or after the
    first byte of another request, or that has not read what it was sent within that time. uvicorn itself counts the pauses between requests alone, so that slow heads could hold every
    connection that the server may have."""

    class PatientFor(H11Protocol):
        _head_due: asyncio.TimerHandle | None = None
        _read_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # What a client has not read stands in the kernel's buffer alone; beyond it writing pauses, and a clock begins.
            transport.set_write_buffer_limits(0)
            self._expect_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._read_due is None:
                self._read_due = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._now_read()

        def _now_read(self) -> None:
            if self._read_due is not None:
                self._read_due.cancel()
                self._read_due = None

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            cycle = self.cycle
            if cycle is None or cycle.response_complete:
                self._expect_head()
            elif self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._head_due is not None:
                self._head_due.cancel()
            self._now_read()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            if self._head_due is None:
                self._head_due = self.loop.call_later(seconds, self._too_late)

        def _too_late(self) -> None:
            self._head_due = None
            cycle = self.cycle
            if (cycle is None or cycle.response_complete) and not self.transport.is_closing():
                self.transport.abort()

    return PatientFor
