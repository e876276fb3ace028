"""The door before JupyterLab: who gets in, what is read of whoever does not."""

from __future__ import annotations

import http.client
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from tornado import web

from project import module
from tornado_server import ask, connect, half_open, is_closed, served

if TYPE_CHECKING:
    from collections.abc import Iterator

door = module("jupyter/door.py")

TOKEN = "a-given&token#100%"
QUOTED = "a-given%26token%23100%25"
BASE = door.secret_path(TOKEN)
FEW = 8  # connections of strangers, in these tests


class Inside(web.RequestHandler):
    """What lies behind the door: says what reached it."""

    def answer(self) -> None:
        self.write(f"inside {self.request.path} {len(self.request.body)}")

    get = post = put = answer


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server behind the door."""
    settings = {"base_url": BASE, "identity_provider": SimpleNamespace(token=TOKEN)}
    with served(lambda: door.Door(web.Application([(".*", Inside)], **settings))) as port:
        yield port


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/lab",
        "/login",
        "/api/contents",
        "/api/contents?token=wrong",
        "/api/",
        "//api",
        "/static/x.js",
        f"{BASE[:-3]}xx/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_stranger_reaches_nothing_and_is_not_told_the_secret_path(port, path, method):
    status, text, headers = ask(port, path, method)
    assert status == 403
    assert "Token authentication is enabled" in text
    assert BASE.strip("/") not in text + str(headers)
    assert "Set-Cookie" not in headers


def test_the_health_check_s_question_is_answered_to_everybody_with_no_word_of_the_path(port):
    status, text, headers = ask(port, "/api")
    assert status == 200 and "version" in text
    assert BASE.strip("/") not in text + str(headers)


@pytest.mark.parametrize("form", ["token", "Bearer"])
def test_a_script_with_the_token_is_served_at_the_usual_addresses(port, form):
    status, text, _ = ask(port, "/api/contents?x=1", "PUT", b"abc", Authorization=f"{form} {TOKEN}")
    assert (status, text) == (200, f"inside {BASE}api/contents 3")
    assert ask(port, f"/api/status?token={QUOTED}")[:2] == (200, f"inside {BASE}api/status 0")


def test_a_page_with_the_token_is_sent_below_the_secret_path(port):
    status, _, headers = ask(port, f"/lab/tree/a.ipynb?token={QUOTED}")
    assert status == 302
    assert headers["Location"] == f"{BASE}lab/tree/a.ipynb?token={QUOTED}"
    assert ask(port, headers["Location"])[:2] == (200, f"inside {BASE}lab/tree/a.ipynb 0")


def test_an_address_of_two_slashes_sends_nobody_elsewhere(port):
    assert ask(port, f"//evil.example/?token={QUOTED}")[2]["Location"].startswith(f"{BASE}evil.example/")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8888", "localhost.evil.example", "0.0.0.0", "10.0.0.1"]
)
def test_a_foreign_host_name_is_refused_even_with_the_token(port, host):
    assert ask(port, f"/lab?token={QUOTED}", Host=host)[0] == 403
    assert ask(port, "/api/contents", Host=host, Authorization=f"token {TOKEN}")[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:16006", "[::1]:8888"])
def test_this_machine_s_own_names_are_let_in(port, host):
    assert ask(port, "/api/contents", Host=host, Authorization=f"token {TOKEN}")[0] == 200


def test_a_large_body_needs_the_token_and_is_then_read_whole(port):
    large = b"x" * 50_000_000
    assert ask(port, "/api/contents/x", "PUT", large, Authorization=f"token {TOKEN}")[1].endswith(" 50000000")
    assert ask(port, f"{BASE}api/contents/x", "PUT", large)[1].endswith(" 50000000")
    for head in (b"Content-Length: 50000000", b"Transfer-Encoding: chunked"):
        assert sent_until_closed(port, head) < 20_000_000, "what a stranger sends is not read on"


def sent_until_closed(port: int, head: bytes) -> int:
    """Return how many bytes of a stranger's body go out before the server closes the connection."""
    sent, piece = 0, b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with connect(port) as stranger:
        stranger.sendall(b"POST /api/contents HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
        try:
            while sent < 50_000_000:
                stranger.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
    return sent


def test_half_open_connections_stop_nobody_and_are_bounded(port, monkeypatch):
    monkeypatch.setattr(door, "STRANGERS", FEW)
    with half_open(port, 5 * FEW, lambda: ask(port, "/api")[0] == 200) as waiting:
        assert is_closed(waiting[0]), "the one that waited longest"
        waiting[-1].settimeout(0.01)
        with pytest.raises(TimeoutError):
            is_closed(waiting[-1])


def test_who_has_shown_the_token_is_not_closed_for_strangers(port, monkeypatch):
    monkeypatch.setattr(door, "STRANGERS", FEW)
    guest = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    guest.request("GET", f"{BASE}api")
    guest.getresponse().read()
    own = guest.sock
    with half_open(port, 5 * FEW, lambda: ask(port, "/api")[0] == 200):
        guest.request("GET", f"{BASE}api")
        assert guest.getresponse().status == 200 and guest.sock is own


def test_the_secret_path_is_the_same_for_a_given_token_and_drawn_for_none():
    assert door.secret_path("a") == door.secret_path("a") != door.secret_path("b")
    assert door.secret_path("") != door.secret_path("")
    assert "a" * 5 not in door.secret_path("a" * 5)
