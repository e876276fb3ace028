"""What a server has done, in the words of Prometheus: requests by answer, their time, who waits, loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from trainlab.serving.engine import Engine

PATHS = ("/", "/api/nearest", "/api/sentiment", "/api/caption", "/card")  # all others are one
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Counts:
    """Counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self._all = CollectorRegistry()
        self._answers = Counter("serve_requests", "Requests answered", ("path", "status"), registry=self._all)
        self._seconds = Histogram(
            "serve_seconds",
            "From a request's last byte to its answer",
            ("path",),
            buckets=SECONDS,
            registry=self._all,
        )
        self._waiting = Gauge("serve_waiting", "Requests that wait or are worked at", registry=self._all)
        loads = Gauge("serve_loads", "Loads that have ended, refused ones too", registry=self._all)
        loads.set_function(lambda: engine.loads)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        path = path if path in PATHS else "other"
        self._answers.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def wait(self, requests: int) -> None:
        """Note how many requests wait or are worked at."""
        self._waiting.set(requests)

    def text(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return generate_latest(self._all)
