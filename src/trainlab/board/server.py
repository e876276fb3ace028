"""The board's server: on a socket that Jupyter stands before, or alone on this machine's own address."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from contextlib import suppress
from pathlib import Path

from trainlab.board import guard
from trainlab.board.app import application
from trainlab.web.binding import BACKLOG, bound
from trainlab.web.connections import Server
from trainlab.web.limits import Limits

HOST, PORT = "127.0.0.1", 8899


class Uncounted:
    """Counts nothing: whoever wants figures of the board looks at its process."""

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count nothing."""

    def wait(self, requests: int) -> None:
        """Note nothing."""


def alone(logs: Path, port: int) -> None:
    """Serve on this machine until a signal ends it; the address that is printed holds the token."""
    token = secrets.token_urlsafe(24)
    with bound(HOST, port) as sock:
        print(f"http://{HOST}:{sock.getsockname()[1]}/{token}/", flush=True)
        _serve(logs, sock, token, [])


def behind_jupyter(logs: Path, path: Path) -> None:
    """Serve on a Unix socket, which jupyter-server-proxy has made the place for, until a signal ends it."""
    with suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
        _serve(logs, sock, None, None)


def _serve(logs: Path, sock: socket.socket, token: str | None, hosts: list[str] | None) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    app = guard.Guard(application(logs), token)
    limits = Limits(
        app, Uncounted(), lambda _, sentence: f"<!doctype html><p>{sentence}", "", hosts, guard.POLICY
    )
    server = Server(limits)

    def end(*_: object) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, end)
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve([sock]))
