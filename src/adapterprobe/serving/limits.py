"""What a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; each has its own answer where it is passed."""

    body_bytes: int = 1 << 20
    """Size of a request's body: 413."""
    inputs: int = 256
    """Texts or conversations of one request: 400."""
    new_tokens: int = 1024
    """Tokens of one reply: 400."""
    waiting: int = 32
    """Requests that wait for the model or are in it: 429."""
    seconds: float = 120.0
    """From a request's head to the end of its answer: 504, or a stream that breaks off."""
    head_seconds: float = 10.0
    """For a request's head and then for its body: the connection is closed, or 408."""
    connections: int = 256
    """Connections at once: 503."""
