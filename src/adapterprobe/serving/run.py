"""A server that listens, until it is stopped."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from pathlib import Path

import uvicorn

from adapterprobe.errors import ConfigError, OutputError
from adapterprobe.serving.guard import Guard
from adapterprobe.serving.limits import Limits
from adapterprobe.serving.protocol import patient_for

TOKEN_VARIABLE = "ADAPTERPROBE_TOKEN"


def found_token(file: str | None) -> str | None:
    """The bearer token, out of a file or the environment: on the command line every user of the machine could read it.

    Raises:
        ConfigError: the file cannot be read, or it has no token that a header can carry.
    """
    if file is None:
        token, where = os.environ.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}"
        if token is None:
            return None
    else:
        where = file
        try:
            token = Path(file).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the token file {file}: {error}") from error
    token = token.strip()
    if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{where} has no token: expected one word of at least 8 printable ASCII characters")
    return token


def listening(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens, taken before models are loaded.

    Raises:
        ConfigError: a host that others can reach, without a token.
        OutputError: the address cannot be had.
    """
    if token is None and not _loopback(host):
        raise ConfigError(
            f"--host {host} lets others ask this model; give a bearer token by --token-file or {TOKEN_VARIABLE}, or listen on 127.0.0.1"
        )
    if not 0 <= port < 2**16:
        raise OutputError(f"--port expects a number from 0 (any that is free) to 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port") from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(app: Guard, limits: Limits) -> uvicorn.Server:
    """uvicorn for an application of ours."""
    config = uvicorn.Config(
        app,
        http=patient_for(limits.head_seconds),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)
