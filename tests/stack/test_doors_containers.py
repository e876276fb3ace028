"""What stands behind JupyterLab's login in the real containers, TensorBoard without a port of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.request
from contextlib import ExitStack
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING

import pytest

from containers import Stack, started
from project import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

TOKEN = "a-given-token"
FILES = "docker-compose.yml:docker-compose.door.yml"
RUN = "import trainlab\nwith trainlab.Run('door', monitor=False) as run: run.log({'train/loss': 0.5}, 1)"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Stack]:
    """Start a fresh clone, whose TensorBoard has no port, as plain `docker compose up` does; with one run."""
    folder = tmp_path_factory.mktemp(f"door{os.getpid()}-")
    settings = {
        "TENSORBOARD_PORT": "off",
        "COMPOSE_FILE": FILES,
        "JUPYTER_TOKEN": TOKEN,
        "SERVE_TOKEN": "hush",
    }
    with started(folder, free_port, **settings) as clone:
        clone.inside("jupyter", f'python -c "{RUN}"')
        yield clone


def ask(stack: Stack, path: str) -> bytes:
    """Return what a script with the token is answered."""
    request = urllib.request.Request(stack.url("jupyter", path), headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=90) as answer:
        return answer.read()


def test_tensorboard_is_healthy_and_has_no_port_of_the_host(stack):
    state = stack.state("tensorboard")
    assert state["State"]["Health"]["Status"] == "healthy"
    assert not any(state["NetworkSettings"]["Ports"].values())
    assert f"127.0.0.1:{stack.environment['JUPYTER_PORT']}/tensorboard/" in stack.compose("logs").stdout


def test_both_are_reached_through_the_login_and_not_without(stack):
    assert json.loads(ask(stack, "/tensorboard/data/environment"))["data_location"] == "/workspace/logs"
    assert b"door/" in ask(stack, "/board/")
    for path in ("/tensorboard/data/environment", "/board/", "/serve/"):
        assert status_of(stack.url("jupyter", path)) == 403
        assert (
            status_of(stack.url("jupyter", path), Authorization=f"token {TOKEN}", Host="evil.example") == 403
        )


def test_the_address_with_the_token_opens_the_board_and_keeps_no_token(stack):
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    page = urllib.request.Request(
        stack.url("jupyter", f"/board/?token={TOKEN}"), headers={"Accept": "text/html"}
    )
    with opener.open(page, timeout=90) as answer:
        assert answer.status == 200
        assert re.fullmatch(r"/[0-9a-f]{32}/board/", urllib.request.Request(answer.url).selector)


@pytest.mark.parametrize("path", ["tensorboard:6006", "6006", "absolute/tensorboard:6006", "absolute/6006"])
def test_no_other_door_leads_to_the_other_container(stack, path):
    address = stack.url("jupyter", f"/proxy/{path}/data/environment")
    assert status_of(address, Authorization=f"token {TOKEN}") == 404


def test_what_does_not_run_is_told_in_a_sentence(stack):
    assert status_of(stack.url("jupyter", "/serve/"), Authorization=f"token {TOKEN}") == 503


def test_no_kernel_inherits_a_token_of_these(stack):
    kernel = stack.jupyter("POST", "/api/kernels", TOKEN, {"name": "python3"})["id"]
    of_kernels = "grep -lz ipykernel[_]launcher /proc/[0-9]*/cmdline | sed s/cmdline/environ/ | xargs cat"
    known = stack.inside("jupyter", of_kernels).stdout
    stack.jupyter("DELETE", f"/api/kernels/{kernel}", TOKEN)
    assert "JUPYTER_PORT=" in known and "SERVE_TOKEN" not in known and "JUPYTER_TOKEN" not in known


def test_a_thousand_connections_to_the_door_stop_nobody_at_work(stack):
    with ExitStack() as open_ones:
        for number in range(1000):
            address = ("127.0.0.1", int(stack.environment["JUPYTER_PORT"]))
            open_ones.enter_context(socket.create_connection(address, timeout=20)).sendall(
                b"GET / HTTP/1.1\r\n"
            )
            if number % 100 == 99:
                since = time.monotonic()
                assert b"door/" in ask(stack, "/board/")
                assert ask(stack, "/tensorboard/data/runs")
                assert time.monotonic() - since < 10


def test_with_a_board_that_runs_a_stop_takes_no_longer(stack):
    """The last test: it stops the service."""
    since = time.monotonic()
    stack.compose("stop", "jupyter")
    assert time.monotonic() - since < 10
    assert stack.state("jupyter")["State"]["ExitCode"] in (0, 143)
