"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse

from adapterprobe.terminal import one_line


def error_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One line, in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": one_line(text), "type": kind, "code": status}}, status, headers=headers)
