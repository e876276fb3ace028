"""The server's life: a start or a sentence, roll-overs, slow clients, an end in order."""

from __future__ import annotations

import http.client
import os
import pty
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import served_bundles
from running_server import RunningServer
from terminal import in_terminal
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("onnx")
pytest.importorskip("fastapi")

SENTIMENT = "/api/sentiment"
OTHER = {"card.json": b'{"run": "other"}'}
HALF_OPEN = 1000
REQUESTS = 10_000
AT_ONCE = 16


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "lab" / "models"


@pytest.fixture
def names(models: Path) -> list[str]:
    """Two bundles of one kind, the first of which is chosen."""
    names = [
        served_bundles.write("sentiment", each, more, models) for each, more in (("one", {}), ("two", OTHER))
    ]
    served_bundles.choose(models, names[0])
    return names


@pytest.fixture
def server(models: Path, names: list[str], free_port: Callable[[], int]) -> Iterator[RunningServer]:
    with RunningServer(models, free_port()) as running:
        yield running


def refused(models: Path, port: int, *words: str, **environment: str) -> str:
    """Start a server that can't; return its sentence."""
    models.parent.mkdir(exist_ok=True, parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "trainlab.serving.server", "--port", str(port), *words],
        env=os.environ | {"TRAINLAB_MODELS": str(models)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_without_a_choice_it_ends_with_a_sentence(models: Path, free_port: Callable[[], int]) -> None:
    assert "nothing is chosen yet" in refused(models, free_port())


def test_a_bundle_that_is_altered_or_foreign_ends_it_with_a_sentence(
    models: Path, names: list[str], free_port: Callable[[], int]
) -> None:
    (models / names[0] / "card.json").write_text("{}")
    assert "is damaged or was replaced" in refused(models, free_port())
    (models / "trusted").unlink()
    assert "was not exported here" in refused(models, free_port())
    shutil.rmtree(models / names[0])
    assert "is no bundle" in refused(models, free_port())


def test_a_port_that_is_taken_ends_it_with_a_sentence(server: RunningServer, models: Path) -> None:
    told = refused(models, server.port)
    assert f"127.0.0.1:{server.port}: Address already in use" in told
    assert f"--port {server.port + 1}" in told


def test_a_hangup_loads_what_is_chosen_by_then(server: RunningServer, models: Path, names: list[str]) -> None:
    served_bundles.choose(models, names[1], served_bundles.write("caption", "eyes", models=models))
    state = server.load()
    assert state["serving"]["sentiment"] == names[1]
    assert state["serving"].keys() == {"sentiment", "caption"}
    assert (state["refused"], state["loads"]) == ("", 2)
    assert server.ask(SENTIMENT, {"text": "good"}).json["bundle"] == names[1]


@pytest.mark.parametrize("fault", ["gone", "damaged", "foreign", "garbled", "two of a kind"])
def test_a_load_that_is_refused_leaves_the_old_bundle_and_the_reason(
    server: RunningServer, models: Path, names: list[str], fault: str
) -> None:
    served_bundles.choose(models, names[1])
    if fault == "gone":
        shutil.rmtree(models / names[1])
    elif fault == "damaged":
        (models / names[1] / "text.onnx").write_bytes(b"")
    elif fault == "foreign":
        (models / "trusted").unlink()
    elif fault == "garbled":
        (models / "served").write_bytes(b"\xff\0../..")
    else:
        served_bundles.choose(models, *names)
    state = server.load()
    assert state["serving"] == {"sentiment": names[0]}
    assert state["refused"]
    assert state["refused"] in server.log
    assert server.ask(SENTIMENT, {"text": "good"}).json["bundle"] == names[0]


def test_a_bundle_that_is_deleted_while_it_serves_goes_on_serving(
    server: RunningServer, models: Path, names: list[str]
) -> None:
    shutil.rmtree(models)
    assert server.ask(SENTIMENT, {"text": "good"}).json["label"] == "positive"
    assert "nothing is chosen yet" in server.load()["refused"]
    assert server.ask(SENTIMENT, {"text": "bad"}).json["label"] == "negative"


def test_many_hangups_at_once_lead_to_the_last_choice(
    server: RunningServer, models: Path, names: list[str]
) -> None:
    last = served_bundles.write("sentiment", "three", {"card.json": b'{"run": "three"}'}, models)
    for name in (*15 * names, last):
        served_bundles.choose(models, name)
        server.process.send_signal(signal.SIGHUP)
    until(lambda: server.state()["serving"]["sentiment"] == last, "the last choice")


def test_a_hangup_during_the_start_is_not_lost(
    models: Path, names: list[str], free_port: Callable[[], int]
) -> None:
    running = RunningServer(models, free_port())
    try:
        until(lambda: caught(running) >> signal.SIGHUP - 1 & 1, "a handler")
        running.process.send_signal(signal.SIGHUP)
        running.ready()
        until(lambda: running.state()["loads"] >= 2, "a second load")
    finally:
        running.process.kill()
        running.process.wait()


def caught(server: RunningServer) -> int:
    """Return which signals a process has handlers for, as a bit each."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("SigCgt:")[2].split()[0], 16)


def test_clients_that_never_end_their_request_keep_nobody_from_an_answer(server: RunningServer) -> None:
    parts = (
        b"",
        b"GET / HT",
        b"POST /api/sentiment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    )
    before = server.memory()
    slow = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        for number in range(HALF_OPEN):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            connection.sendall(parts[number % 3])
            slow.append(connection)
            if number % 100 == 0:
                assert server.ask(SENTIMENT, {"text": "good"}).status == 200
        began = time.monotonic()
        for path in ("/health", "/"):
            assert server.ask(path).status == 200
        assert server.ask(SENTIMENT, {"text": "good"}).status == 200
        assert time.monotonic() - began < 5
        assert server.memory() - before < 64 << 20
    finally:
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_a_connection_without_a_request_is_ended_after_a_while(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 8 < time.monotonic() - began < 20


class Asking:
    """Clients that ask again and again, each on a connection that stays open, and what became of it."""

    def __init__(self, port: int, most: int = 1 << 30) -> None:
        self.answers: list[int] = []
        self.bundles: set[str] = set()
        self.lost: list[str] = []
        self._port, self._left, self._lock = port, most, threading.Lock()

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def client(self) -> None:
        """Ask until it is enough, or nobody listens any more."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        body = b'{"text": "good rain"}'
        while self._take():
            try:
                connection.connect() if connection.sock is None else None
            except OSError:
                return  # nobody listens: the request was not accepted
            try:
                connection.request("POST", SENTIMENT, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            self.answers.append(answer.status)
            if answer.status == 200:
                self.bundles.add(content.partition(b'"bundle":"')[2].partition(b'"')[0].decode())


@pytest.mark.slow
def test_ten_thousand_requests_survive_three_roll_overs_in_level_memory(
    server: RunningServer, models: Path, names: list[str]
) -> None:
    warm = Asking(server.port, 1000)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            pool.submit(warm.client)
    before, asking = server.memory(), Asking(server.port, REQUESTS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clients = [pool.submit(asking.client) for _ in range(AT_ONCE)]
        for number in range(1, 4):
            until(lambda done=number: len(asking.answers) > done * REQUESTS // 5, "a part of the requests")
            served_bundles.choose(models, names[number % 2])
            assert server.load()["refused"] == ""
        for client in clients:
            client.result()
    assert asking.lost == []
    assert len(asking.answers) == REQUESTS
    assert set(asking.answers) <= {200, 503}
    assert asking.bundles == {*names}
    assert server.memory() < 1.1 * before


def test_sigterm_under_load_answers_every_request_that_was_accepted(server: RunningServer) -> None:
    asking = Asking(server.port)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            pool.submit(asking.client)
        try:
            until(lambda: len(asking.answers) > 200, "some answers")
            server.process.terminate()
            began = time.monotonic()
            assert server.process.wait(30) == 0
            assert time.monotonic() - began < 10
        finally:  # else the clients ask for ever
            server.process.kill()
    assert asking.lost == []
    assert set(asking.answers) <= {200, 503}
    assert "Traceback" not in server.log


def test_ctrl_c_ends_it_without_a_traceback(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log


def test_it_ends_with_the_terminal_that_it_was_started_in(
    models: Path, names: list[str], free_port: Callable[[], int]
) -> None:
    command = [sys.executable, "-m", "trainlab.serving.server", "--port", str(free_port())]
    environment = os.environ | {"TRAINLAB_MODELS": str(models)}
    with in_terminal(command, models.parent, environment) as terminal:
        terminal.until("serving at http://127.0.0.1:")
    assert terminal.process.returncode == 0


def test_with_nohup_it_outlives_its_terminal_and_loads_anew(
    models: Path, names: list[str], free_port: Callable[[], int]
) -> None:
    keyboard, screen = pty.openpty()
    try:
        running = RunningServer(models, free_port(), stdin=screen, before=("setsid", "--ctty", "nohup"))
        with running:
            os.close(keyboard)  # a hang-up
            until(lambda: running.state()["loads"] == 2, "a second load")
            assert running.load()["loads"] == 3
    finally:
        os.close(screen)
