"""Connections that wait for nobody for long, and a server that ends in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trainlab.web.limits import PATIENCE

if TYPE_CHECKING:
    import socket

    from trainlab.web.limits import Limits

HEAD = 10  # seconds for a request's first lines; so long, too, may a connection lie idle
DRAIN = PATIENCE  # seconds in which each part of an answer has to be taken, the last one too
CONNECTIONS = 512  # that wait for a request; one more closes the one that waits for the longest
LAST = 0.5  # seconds, at the end, in which connections that are open may still ask
GRACE = 8  # seconds in which accepted requests are answered then; both together below the 10 of `docker stop`

log = logging.getLogger("trainlab.web")


class Protocol(H11Protocol):
    """uvicorn's, that knows since when a connection waits for a request; uvicorn itself has no limit there.

    Args:
        waiting: Connections without a request, and since when, the longest first.
        arguments: Whatever uvicorn gives its own.
    """

    def __init__(self, waiting: dict[Protocol, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._waiting = waiting
        self.deaf_since: float | None = None  # whoever asked takes nothing of the answer, and much is left

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self._waiting) >= CONNECTIONS:
            next(iter(self._waiting)).end()
        self._waiting[self] = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; with its head whole, it is the application that waits for the rest."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._waiting[self] = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the answer is not taken."""
        self.deaf_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that most of it was taken."""
        self.deaf_since = None
        super().resume_writing()

    def patience(self) -> float:
        """Return how many seconds this connection may wait."""
        return DRAIN if self.transport.get_write_buffer_size() else HEAD

    def end(self) -> None:
        """End the connection at once, whatever it still holds."""
        self._waiting.pop(self, None)
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's, with an end to patience, and a last moment for whoever is connected.

    Args:
        limits: What is served.
    """

    def __init__(self, limits: Limits) -> None:
        self._waiting: dict[Protocol, float] = {}
        self._limits = limits
        super().__init__(
            uvicorn.Config(
                limits,
                http=functools.partial(Protocol, self._waiting),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """End connections that have waited for too long; uvicorn calls this ten times a second."""
        now = time.monotonic()
        for each, since in list(self._waiting.items()):
            if now - since > each.patience():
                each.end()
        for one in list(self.server_state.connections):
            if isinstance(one, Protocol) and one.deaf_since and now - one.deaf_since > DRAIN:
                one.end()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what is asked on those that there are, and end them."""
        log.info("ending, once every request that was accepted is answered")
        self._limits.closing = True
        for each in self.servers:
            each.close()
        await asyncio.sleep(LAST)
        await super().shutdown(sockets)
