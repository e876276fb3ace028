"""What the door makes of an answer of the board's that it can't hand on, or hands on changed."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from tornado import web

from project import module
from tornado_server import ask, served

if TYPE_CHECKING:
    from collections.abc import Iterator

doors = module("jupyter/doors.py")


@contextmanager
def open_door(answer: bytes, protocol: str = "http") -> Iterator[int]:
    """The board's door without a login, before a board that says these bytes and then no more."""

    class Open(doors.Board):
        proxy_request_headers = doors.Beside.proxy_request_headers

        async def prepare(self) -> None:
            self.current_user = "anybody"

    async def listens() -> bool:
        return True

    def serve() -> None:
        with suppress(OSError):  # it is shut down
            while True:
                clients.append(board.accept()[0])
                clients[-1].recv(10_000)
                clients[-1].sendall(answer)

    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as board:
        thread = threading.Thread(target=serve)
        thread.start()
        program = SimpleNamespace(socket=f"127.0.0.1:{board.getsockname()[1]}", listens=listens)
        handlers = [("/board(/.*)", Open, {"program": program})]
        app = web.Application(handlers, base_url="/", headers={})
        with served(lambda: web.HTTPServer(app, protocol=protocol)) as port:
            yield port
        board.shutdown(socket.SHUT_RDWR)
        thread.join()
        for client in clients:
            client.close()


def test_an_answer_that_is_too_large_or_takes_too_long_is_told_as_such(monkeypatch):
    with open_door(b"HTTP/1.1 200 OK\r\nContent-Length: 104857601\r\n\r\n") as port:
        status, text, _ = ask(port, "/board/archive")
        assert status == 502 and "more than the 100 MB" in text and "does not start" not in text
    monkeypatch.setattr(doors, "ANSWER", 0.3)
    with open_door(b"") as port:
        status, text, _ = ask(port, "/board/archive")
        assert status == 504 and "took longer than" in text and "does not start" not in text


@pytest.mark.parametrize(("protocol", "more"), [("http", ""), ("https", "; Secure")])
def test_by_https_the_columns_go_by_https_alone(protocol, more):
    kept = "columns=run; Path=/board/; HttpOnly"
    answer = f"HTTP/1.1 200 OK\r\nSet-Cookie: {kept}\r\nContent-Length: 0\r\n\r\n".encode()
    with open_door(answer, protocol) as port:
        assert ask(port, "/board/")[2].get_all("Set-Cookie") == [kept + more]
