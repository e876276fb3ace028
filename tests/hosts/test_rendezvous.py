from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from trainlab.errors import UserError
from trainlab.hosts import rendezvous


@pytest.mark.parametrize(("text", "known"), [("2", (2, 2)), ("1:2", (1, 2)), ("4:64", (4, 64))])
def test_how_many_hosts_train_is_one_number_or_two(text: str, known: tuple[int, int]) -> None:
    assert rendezvous.nodes(text) == known


@pytest.mark.parametrize("text", ["", "0", "2:1", "1:", "two", "1:2:3", "-1"])
def test_any_other_number_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"expected how many hosts train, such as 2, or .* such as 1:2"):
        rendezvous.nodes(text)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("127.0.0.1", "127.0.0.1:29400"),
        ("localhost:7", "localhost:7"),
        ("[::1]:29500", "[::1]:29500"),
        ("100.64.0.7", "100.64.0.7:29400"),
    ],
)
def test_the_store_is_named_by_host_and_port(text: str, known: str) -> None:
    assert str(rendezvous.endpoint(text)) == known


@pytest.mark.parametrize("text", ["", "a:b:c", "127.0.0.1:0", "127.0.0.1:70000", ":29400"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected the store's host, or HOST:PORT"):
        rendezvous.endpoint(text)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888"])
def test_a_name_that_leads_into_the_internet_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = [(None, None, None, None, ("10.0.0.1", 1)), (None, None, None, None, (address, 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(UserError, match=f"{address} is an address of the internet, and .* no password"):
        rendezvous.endpoint("head")


def test_a_name_that_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match="no host 'head' is known here"):
        rendezvous.endpoint("head")


@pytest.mark.parametrize("name", ["a..b", "a" * 64])
def test_a_name_that_can_be_nobody_s_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"no host '{name}' is known here"):
        rendezvous.endpoint(name)


def test_where_no_store_answers_what_to_start_is_said(free_port: Callable[[], int]) -> None:
    port = free_port()
    with pytest.raises(UserError, match=f"start it: trainlab store --address 127.0.0.1 --port {port}"):
        rendezvous.check(rendezvous.Endpoint("127.0.0.1", port))


def test_the_processes_speak_by_the_network_that_leads_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine0")
    cards = {"lo": ["127.0.0.1"], "lan0": ["fe80::1%lan0", "192.168.7.2"], "wan0": ["203.0.113.1"]}
    known = {name: [SimpleNamespace(address=each) for each in has] for name, has in cards.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: known)
    monkeypatch.setattr(rendezvous, "own_address", lambda _: "192.168.7.2")
    told = rendezvous.networks(rendezvous.Endpoint("192.168.7.1", 1))
    assert (told["NCCL_SOCKET_IFNAME"], told["GLOO_SOCKET_IFNAME"]) == ("lan0", "mine0")


def test_this_host_s_address_is_that_of_the_route_to_the_store() -> None:
    assert rendezvous.own_address(rendezvous.Endpoint("127.0.0.1", 1)) == "127.0.0.1"


def test_a_host_that_is_cut_off_names_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: rendezvous.Endpoint) -> str:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(rendezvous, "own_address", unreachable)
    assert rendezvous.networks(rendezvous.Endpoint("192.168.7.1", 1)) == {}


def test_whoever_waits_for_a_store_that_is_out_of_reach_is_woken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as store, socket.create_server(("127.0.0.1", 0)) as other:
        place = rendezvous.Endpoint("127.0.0.1", store.getsockname()[1])
        waiting = socket.create_connection(store.getsockname())
        beside = socket.create_connection(other.getsockname())
        with waiting, beside, store.accept()[0], other.accept()[0] as far:
            rendezvous.hang_up(rendezvous.addresses(place), place.port)
            waiting.settimeout(10)
            assert waiting.recv(1) == b""
            far.sendall(b"x")
            assert beside.recv(1) == b"x", "no other connection is touched"
