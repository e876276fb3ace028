"""The guard before TensorBoard: what it refuses and bounds; a WSGI application stands in for TensorBoard."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from tornado.wsgi import WSGIContainer

import tornado_server
from project import module
from tornado_server import connect, half_open, is_closed, served

if TYPE_CHECKING:
    from collections.abc import Iterator

guard = module("tensorboard/guard.py")

FEW = 8  # connections, in these tests


TAGS = ["test/f1", "train/loss", "train/lr", "val/f1", "val/loss", "val_tfidf/f1", "vitals/cpu", "zeal"]


def application(environ: dict, start_response: object) -> list[bytes]:
    if environ["PATH_INFO"] == guard.HPARAMS:
        metrics = [{"name": {"group": "", "tag": tag}} for tag in TAGS]
        hparams = [{"name": name, "differs": name == "margin"} for name in ("margin", "data", "lr")]
        body = json.dumps({"metricInfos": metrics, "hparamInfos": hparams}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", [("Content-Type", "text/plain")])
    length = len(environ["wsgi.input"].read())
    if environ["PATH_INFO"] in ("/", "/data/plugin/x/page.html") and environ["REQUEST_METHOD"] == "GET":
        return [b"<style>@font-face { src: url(/font-roboto/a.woff2) }</style>"]
    if environ["PATH_INFO"] == "/broken":
        raise RuntimeError("the data server is gone")
    return [f"served {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {length}".encode()]


@pytest.fixture
def port() -> Iterator[int]:
    """A guarded server."""
    inside = guard.never_silent(guard.arranged(application))
    with served(lambda: guard.Guard(WSGIContainer(inside, ThreadPoolExecutor(2)))) as port:
        yield port


def ask(
    port: int, method: str = "GET", body: object = None, path: str = "/data/runs", **headers: str
) -> tuple[int, str]:
    """Return an answer's status and text, as TensorBoard's page asks."""
    return tornado_server.ask(port, path, method, body, **{"Host": f"127.0.0.1:{port}", **headers})[:2]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_tensorboard_s_own_page_asks_is_served(port, method):
    status, text = ask(port, method, b"abc" if method == "POST" else None, Sec_Fetch_Site="same-origin")
    assert status == 200
    assert method == "HEAD" or text == f"served {method} /data/runs {3 * (method == 'POST')}"


def test_a_question_that_tensorboard_breaks_on_is_answered(port):
    for method in ("GET", "HEAD", "POST"):
        assert ask(port, method, path="/broken")[0] == 500


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1:16006", "[::1]:6006"])
def test_this_machine_s_names_are_served_with_any_port(port, host):
    assert ask(port, Host=host)[0] == 200
    assert ask(port, "POST", b"", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:6006"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "10.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_a_page_of_another_name_or_site_is_refused(port, headers):
    for method in ("GET", "POST"):
        status, text = ask(port, method, **headers)
        assert status == 403
        assert "served" not in text


def test_a_link_to_tensorboard_may_be_followed(port):
    assert ask(port, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(port, method):
    assert ask(port, method)[0] == 405


def test_a_body_that_is_too_large_is_refused_before_it_is_read(port, monkeypatch):
    for length in (guard.BODY + 1, 3_000_000_000):
        with connect(port) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length)
            assert client.recv(12) == b"HTTP/1.1 413"
    assert ask(port, "POST", b"x" * guard.BODY)[1].endswith(str(guard.BODY))
    assert ask(port, "POST", iter([b"x"]))[0] == 411  # a chunked one


def test_all_bodies_together_are_bounded_and_others_are_served_meanwhile(port, monkeypatch):
    monkeypatch.setattr(guard, "BODIES", 3 * guard.BODY)
    waiting = [connect(port) for _ in range(3)]
    for client in waiting:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nx" % guard.BODY)
    assert ask(port)[0] == 200
    assert ask(port, "POST", b"one more")[0] == 503
    for client in waiting:
        client.sendall(b"x" * (guard.BODY - 1))
        assert client.recv(12) == b"HTTP/1.1 200"
        client.close()
    assert ask(port, "POST", b"one more")[0] == 200, "what was promised has been read"


def test_half_open_connections_stop_nobody_and_are_bounded(port, monkeypatch):
    monkeypatch.setattr(guard, "CONNECTIONS", FEW)
    with half_open(port, 5 * FEW, lambda: ask(port)[0] == 200) as waiting:
        assert is_closed(waiting[0]), "the one that waited longest"


@pytest.mark.parametrize(
    ("asked", "kept"), [("/", ""), ("/?runFilter=news/2026&smoothing=0", "runFilter=news/2026&smoothing=0&")]
)
def test_the_page_opens_with_the_two_losses_pinned(port, asked, kept):
    status, _, headers = tornado_server.ask(port, asked, Host="localhost")
    assert (status, headers["Location"][: len(kept) + 1]) == (302, f"?{kept}"), "right below any path"
    pinned = json.loads(unquote(headers["Location"]).partition("pinnedCards=")[2])
    assert [each["tag"] for each in pinned] == ["train/loss", "val/loss"]
    shown = ask(port, path=f"/{headers['Location']}")
    assert shown == (200, "<style>@font-face { src: url(font-roboto/a.woff2) }</style>")
    assert "url(../../../font-roboto/" in ask(port, path="/data/plugin/x/page.html")[1]


def test_what_somebody_else_pinned_stays(port):
    assert ask(port, path="/?pinnedCards=%5B%5D")[0] == 200


def test_the_hparams_tab_has_validation_first_and_the_machine_s_load_last(port):
    status, text = ask(port, "POST", b"{}", path=guard.HPARAMS)
    columns = json.loads(text)
    assert [each["name"] for each in columns["hparamInfos"]] == ["margin", "lr", "data"]
    tags = [each["name"]["tag"] for each in columns["metricInfos"]]
    wanted = ["val/loss", "val/f1", "test/f1", "train/loss", "train/lr", "val_tfidf/f1", "zeal", "vitals/cpu"]
    assert (status, tags) == (200, wanted)


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("9001", "http://127.0.0.1:9001/"),
        ("8888/tensorboard", "http://127.0.0.1:8888/tensorboard/"),
        ("https://lab.example.org:443/tensorboard", "https://lab.example.org:443/tensorboard/"),
    ],
)
def test_the_address_that_tensorboard_prints_is_the_one_that_people_reach(monkeypatch, shown, address):
    monkeypatch.setenv("TENSORBOARD_SHOWN", shown)
    assert guard.Server.get_url(None) == address
