"""Connections that wait for nobody for long, and a server that loads anew at SIGHUP and ends in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trainlab.errors import UserError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from trainlab.serving.engine import Engine
    from trainlab.serving.limits import Limits

HEAD = 10  # seconds for a request's first lines; so long, too, may a connection lie idle
DRAIN = 30  # seconds in which the last part of an answer has to be taken
CONNECTIONS = 512  # that wait for a request; one more closes the one that waits for the longest
LAST = 0.5  # seconds, at the end, in which connections that are open may still ask
GRACE = 8  # seconds in which accepted requests are answered then; both together below the 10 of `docker stop`

log = logging.getLogger("trainlab.serving")


class Protocol(H11Protocol):
    """uvicorn's, that knows since when a connection waits for a request; uvicorn itself has no limit there.

    Args:
        waiting: Connections without a request, and since when, the longest first.
        arguments: Whatever uvicorn gives its own.
    """

    def __init__(self, waiting: dict[Protocol, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._waiting = waiting

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

    def patience(self) -> float:
        """Return how many seconds this connection may wait."""
        return DRAIN if self.transport.get_write_buffer_size() else HEAD

    def end(self) -> None:
        """End the connection at once, whatever it still holds."""
        self._waiting.pop(self, None)
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's, with an end to patience, loads at SIGHUP, and a last moment for whoever is connected."""

    def __init__(self, limits: Limits, engine: Engine, early: Sequence[int]) -> None:
        self._waiting: dict[Protocol, float] = {}
        self._limits, self._engine, self._early = limits, engine, early
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen to clients, and to SIGHUP."""
        await super().startup(sockets)
        self._loading = asyncio.create_task(self._load_at_hangup())

    async def on_tick(self, counter: int) -> bool:
        """End connections that have waited for too long; uvicorn calls this ten times a second."""
        now = time.monotonic()
        for each, since in list(self._waiting.items()):
            if now - since > each.patience():
                each.end()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what is asked on those that there are, and end them."""
        log.info("ending, once every request that was accepted is answered")
        self._loading.cancel()
        self._limits.closing = True
        for each in self.servers:
            each.close()
        await asyncio.sleep(LAST)
        await super().shutdown(sockets)

    async def _load_at_hangup(self) -> None:
        """Load what is chosen at each SIGHUP; end where that means that the terminal is gone."""
        asked, terminal = asyncio.Event(), _has_terminal()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        if self._early:
            asked.set()
        while True:
            await asked.wait()
            asked.clear()
            if terminal and not _has_terminal():
                self.should_exit = True
                return
            try:
                await asyncio.to_thread(self._engine.load)
            except UserError as error:
                log.error("refused, and what was served is served on: %s", error)
            except Exception:
                log.exception("not loaded, and what was served is served on")
            else:
                log.info("loaded: %s", ", ".join(self._engine.now.names.values()))


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
