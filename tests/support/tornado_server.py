"""A server of tornado's in a thread, and clients that ask it, or that open a connection and say little."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tornado.httpserver import HTTPServer

PATIENCE = 20  # seconds


@contextmanager
def served(make: Callable[[], HTTPServer]) -> Iterator[int]:
    """Serve, on a loop of its own, what `make` returns there; yield the port."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    listener.setblocking(False)

    async def serve() -> None:
        make().add_sockets([listener])
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | Iterable[bytes] | None = None,
    **headers: str,
) -> tuple[int, str, http.client.HTTPMessage]:
    """Return an answer's status, text and headers; `_` in a header's name stands for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def connect(port: int) -> socket.socket:
    """Open a connection that says nothing yet."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


@contextmanager
def half_open(port: int, count: int, is_served: Callable[[], bool]) -> Iterator[list[socket.socket]]:
    """Open connections that never end their headers; after each one somebody else must be served."""
    with ExitStack() as open_ones:
        waiting = [open_ones.enter_context(connect(port)) for _ in range(count)]
        for each in waiting:
            each.sendall(b"GET / HTTP/1.1\r\nHost: local")
            assert is_served()
        yield waiting


def is_closed(connection: socket.socket) -> bool:
    """Say whether the server has closed a connection; one that it holds open raises TimeoutError."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
