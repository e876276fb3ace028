from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from training_hosts import COMMAND
from trainlab.errors import UserError
from trainlab.hosts import store

ENDS_WITHIN = 60


@pytest.mark.slow
def test_the_store_listens_at_its_address_alone_and_ends_when_asked(free_port: Callable[[], int]) -> None:
    port = free_port()
    command = [sys.executable, "-c", COMMAND, "store", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == f"store: 127.0.0.1:{port}\n"
        assert f"--join 127.0.0.1:{port} --name NAME" in serving.stdout.readline()
        listening = [
            each.laddr for each in psutil.Process(serving.pid).net_connections() if each.status == "LISTEN"
        ]
        assert [tuple(each) for each in listening] == [("127.0.0.1", port)]
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(ENDS_WITHIN) == 0


@pytest.mark.parametrize("address", ["8.8.8.8", "0.0.0.0", "::"])
def test_an_address_of_the_internet_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    card = [SimpleNamespace(family=socket.AF_INET, address="8.8.8.8")]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"wan0": card})
    with pytest.raises(UserError, match=re.escape("8.8.8.8, an address of the internet")):
        store.serve(address, 0)


def test_all_addresses_of_a_host_that_the_internet_does_not_reach_are_fine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = ["192.168.1.2", "127.0.0.1"]
    card = [SimpleNamespace(family=socket.AF_INET, address=each) for each in inside]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lan0": card})
    store.check("0.0.0.0")


@pytest.mark.parametrize("name", ["a..b", "a" * 64])
def test_a_name_that_can_be_nobody_s_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"--address {name}: "):
        store.serve(name, 0)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="can't listen at"):
        store.serve("127.0.0.1", taken.getsockname()[1])
