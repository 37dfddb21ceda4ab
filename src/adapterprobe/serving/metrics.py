"""Counts of a server in Prometheus' form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

ROUTES = ("/v1/score", "/v1/chat/completions", "/v1/models", "/health", "/metrics")


class Metrics:
    """A registry of its own, so that several servers of one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"adapterprobe_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests", "Answered requests", "route", "status")
        self.inputs = counter("inputs", "Scored texts and conversations", "detector")
        self.alarms = counter("alarms", "Inputs and replies above the threshold", "detector")
        self.tokens = counter("written_tokens", "Tokens that the model has written")
        self.waiting = Gauge(
            "adapterprobe_waiting_requests", "Requests that wait for the model or are in it", registry=self.registry
        )
        self.seconds = Histogram(
            "adapterprobe_request_seconds", "Time to the end of the answer", ["route"], registry=self.registry
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count one request. Unknown paths are one route, so that a stranger cannot make the registry grow."""
        route = path if path in ROUTES else "other"
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def scored(self, detector: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count what a detector has said."""
        self.inputs.labels(detector).inc(len(rows))
        self.alarms.labels(detector).inc(sum(row["decision"] is True for row in rows))

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self.registry)
