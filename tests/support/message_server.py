"""A small server on loopback that takes messages as Apprise's json:// sends them, or refuses, or hangs."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class MessageServer:
    """What it was sent, and how it answers: a status, or None to hang until the test is over."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.answer: int | None = 200
        self.asked = 0
        self.over = threading.Event()
        self.port = 0

    def address(self, path: str = "a-secret-Topic-4711") -> str:
        return f"json://127.0.0.1:{self.port}/{path}"


@contextmanager
def serving(answer: int | None = 200) -> Iterator[MessageServer]:
    """Serve on a free port until the block ends."""
    known = MessageServer()
    known.answer = answer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known.asked += 1
            if known.answer is None:
                known.over.wait()
                return
            if known.answer == 200:
                known.messages.append(json.loads(body))
            self.send_response(known.answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
