"""Whoever takes nothing of an answer is ended, and no load keeps the server from its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi")

from trainlab.serving.counts import Counts
from trainlab.serving.engine import Engine
from trainlab.serving.reloading import ReloadingServer as Server
from trainlab.web import connections
from trainlab.web.binding import bound
from trainlab.web.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def serving(engine: Engine, answer: bytes = b"") -> Server:
    """Return a server that answers so."""

    async def app(scope: Any, receive: Any, send: Callable[..., Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    return Server(Limits(app, Counts(engine), lambda _, sentence: sentence), engine)


def test_a_client_that_reads_nothing_of_its_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "DRAIN", 0.2)
    monkeypatch.setattr(connections, "HEAD", 60)

    async def story() -> None:
        server = serving(Engine(), bytes(50_000_000))
        with bound("127.0.0.1", 0) as sock:
            running = asyncio.create_task(server.serve([sock]))
            loop = asyncio.get_running_loop()
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, sock.getsockname())
                await loop.sock_sendall(client, 2 * REQUEST)
                known = server.server_state.connections
                async with asyncio.timeout(20):
                    while not known:
                        await asyncio.sleep(0.01)
                    while known:
                        await asyncio.sleep(0.01)
            server.should_exit = True
            await running

    asyncio.run(story())


def test_the_server_ends_while_a_load_is_under_way() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(Engine):
        def load(self) -> None:
            begun.set()
            go.wait(60)

    async def story() -> None:
        server = serving(Slow())
        with bound("127.0.0.1", 0) as sock:
            running = asyncio.create_task(server.serve([sock]))
            while not server.started:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGHUP)
            while not begun.is_set():
                await asyncio.sleep(0.01)
            assert server.loading
            server.should_exit = True
            await running

    try:
        asyncio.run(story())
        assert not go.is_set()
    finally:
        go.set()
