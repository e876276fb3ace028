"""The board as a process: an address with its token alone, a socket behind Jupyter."""

from __future__ import annotations

import http.client
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")

from waiting import until


class ByUnixSocket(http.client.HTTPConnection):
    """A connection to a server that listens on a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def started(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    (tmp_path / "logs").mkdir()
    call = [
        str(Path(sys.executable).with_name("trainlab")),
        "board",
        "--logs",
        str(tmp_path / "logs"),
        *options,
    ]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def status(connection: http.client.HTTPConnection, path: str, **headers: str) -> int:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_alone_it_prints_the_address_that_opens_it_and_ends_at_a_signal(tmp_path: Path, free_port) -> None:
    port = free_port()
    with started(tmp_path, "--port", str(port)) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline())
        assert address.netloc == f"127.0.0.1:{port}"
        connection = http.client.HTTPConnection("127.0.0.1", port)
        assert status(connection, address.path.strip()) == 200
        assert status(connection, "/") == 403
        assert status(connection, address.path.strip(), Host="evil.example") == 403
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stdout.read()


def test_behind_jupyter_it_listens_on_a_socket_of_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "board.sock"
    with started(tmp_path, "--socket", str(path)) as process:
        until(lambda: path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o600, "the socket")
        connection = ByUnixSocket(path)
        until(lambda: status(connection, "/health") == 200, "the answer")
        assert status(connection, "/", Host="lab.example.org", **{"X-Forwarded-Context": "/s/board"}) == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with started(tmp_path, "--port", str(taken.getsockname()[1])) as process:
            assert process.wait(60) == 2
            assert process.stdout is not None
            assert "Address already in use" in process.stdout.read()
