"""A server as programs, browsers and enemies ask it, in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import served_bundles
from forged_pictures import png_that_claims
from project import CHECKOUT
from running_server import RunningServer, multipart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("onnx")
pytest.importorskip("fastapi")

from trainlab.serving.app import application
from trainlab.serving.counts import Counts
from trainlab.serving.engine import Engine, Loaded
from trainlab.serving.questions import CaptionAnswer
from trainlab.web.limits import BODY

NEAREST, SENTIMENT, CAPTION = "/api/nearest", "/api/sentiment", "/api/caption"
MIB = 1 << 20
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[RunningServer]:
    """A server of all three kinds, that asks for no token."""
    models = tmp_path_factory.mktemp("lab") / "models"
    served_bundles.choose(
        models, *[served_bundles.write(kind, kind, models=models) for kind in served_bundles.MADE]
    )
    with RunningServer(models, free_port()) as running:
        yield running


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "grey").save(file, "PNG")
    return file.getvalue()


def raw(server: RunningServer, *parts: bytes) -> bytes:
    """Return what the server says to these bytes, each part after the one before."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while more := connection.recv(65536):
            found += more
            if b"\r\n\r\n" in found and found.endswith(b"}"):
                break
        return found


def test_it_is_small() -> None:
    lines = (CHECKOUT / "src/trainlab/serving/app.py").read_text().splitlines()
    assert len(lines) <= 100


def test_programs_get_answers_of_all_three_kinds(server: RunningServer) -> None:
    names = server.state()["serving"]
    nearest = server.ask(NEAREST, {"title": "rain", "abstract": "", "k": 2})
    assert [each["title"] for each in nearest.json["items"]] == ["Storm", "Rain storm"]
    assert nearest.json["bundle"] == names["nearest"]
    sentiment = server.ask(SENTIMENT, {"text": "good"}).json
    assert (sentiment["label"], sentiment["bundle"]) == ("positive", names["sentiment"])
    body, headers = multipart("picture", picture())
    caption = server.ask(CAPTION, body=body, headers=headers)
    assert caption.json == {"bundle": names["caption"], "caption": "a grey field"}


def test_whoever_watches_gets_health_readiness_and_counts(server: RunningServer) -> None:
    assert (server.ask("/health").status, server.ask("/health").text) == (200, "ok")
    state = server.ask("/ready")
    assert state.status == 200
    assert state.json["serving"].keys() == state.json["digests"].keys() == {"nearest", "sentiment", "caption"}
    assert (state.json["refused"], state.json["loads"]) == ("", 1)
    server.ask(SENTIMENT, {"text": "good"})
    server.ask("/no/such/path")
    counts = server.ask("/metrics").text
    assert 'serve_requests_total{path="/api/sentiment",status="200"}' in counts
    assert 'path="other",status="404"' in counts
    assert "/no/such" not in counts, "whoever asks for many paths fills no memory"
    assert "serve_loads 1.0" in counts


def test_the_card_and_the_interface_are_told(server: RunningServer) -> None:
    assert server.ask("/card").json["nearest"]["run"] == "nearest-run"
    paths = server.ask("/openapi.json").json["paths"]
    assert {NEAREST, SENTIMENT, CAPTION, "/card", "/health", "/ready", "/metrics"} <= paths.keys()
    for page in ("/docs", "/redoc"):  # which would load scripts from elsewhere
        assert server.ask(page).status == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (NEAREST, {"title": "a" * 1001}, 422),
        (NEAREST, {"title": " "}, 422),
        (NEAREST, {"title": "a", "k": 101}, 422),
        (NEAREST, {"title": "a", "k": -1}, 422),
        (NEAREST, {"title": "a", "k": 1e400}, 422),
        (NEAREST, {"title": "\ud800"}, 422),
        (NEAREST, {"title": "a", "more": "b"}, 422),
        (NEAREST, {"title": ["a"]}, 422),
        (NEAREST, [], 422),
        (NEAREST, b"", 422),
        (NEAREST, b"{", 422),
        (NEAREST, b'{"title": "\xff"}', 400),
        (NEAREST, b"[" * 100_000, 400),
        (NEAREST, b'{"k": ' + b"9" * 100_000 + b"}", 400),
        (SENTIMENT, {"text": "a" * 10_001}, 422),
        (SENTIMENT, {"text": ""}, 422),
        (CAPTION, {"picture": "a"}, 422),
        ("/api/other", {}, 404),
        ("/health", {}, 405),
    ],
)
def test_what_is_asked_wrongly_is_refused_and_not_repeated(
    server: RunningServer, path: str, body: object, status: int
) -> None:
    if isinstance(body, bytes):
        answer = server.ask(path, body=body, headers={"Content-Type": "application/json"})
    else:
        answer = server.ask(path, body)
    assert answer.status == status, answer.text
    assert isinstance(answer.json["detail"], str)
    assert len(answer.body) < 500
    assert server.process.poll() is None
    assert "Traceback" not in server.log


@pytest.mark.parametrize("path", [NEAREST, "/", "/health", "/no/such/path"])
def test_a_body_that_is_too_large_is_refused_declared_or_not(server: RunningServer, path: str) -> None:
    assert server.ask(path, body=bytes(4 * MIB + 1)).status == 413
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    assert raw(server, head, *[chunk] * 4, b"1\r\n0\r\n").startswith(b"HTTP/1.1 413")
    declared = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 50}\r\n\r\n".encode()
    assert raw(server, declared).startswith(b"HTTP/1.1 413"), "before a byte of it has come"


def test_a_browser_is_told_so_by_a_page(server: RunningServer) -> None:
    body, headers = multipart("picture", bytes(5 * MIB), ask="caption")
    answer = server.ask("/", body=body, headers=headers | PAGE)
    assert (answer.status, answer.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert "More than 4 MiB" in answer.text
    assert '<a href="./">' in answer.text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (png_that_claims(30_000, 30_000, zlib.compress(bytes(110_000_000), 9)), 415),
        (b"GIF89a" + bytes(20), 415),
        (b"", 415),
        (b"<svg onload='alert(1)'>", 415),
    ],
)
def test_what_is_no_picture_or_a_bomb_is_refused(server: RunningServer, content: bytes, status: int) -> None:
    before = server.memory()
    body, headers = multipart("picture", content)
    assert server.ask(CAPTION, body=body, headers=headers).status == status
    body, headers = multipart("picture", content, ask="caption")
    answer = server.ask("/", body=body, headers=headers)
    assert (answer.status, 'role="alert"' in answer.text) == (status, True)
    assert server.memory() - before < 30 * MIB


@pytest.mark.parametrize("path", ["/", CAPTION])
def test_a_form_of_two_thousand_parts_is_refused(server: RunningServer, path: str) -> None:
    body, headers = multipart("picture", picture(), **{f"field{number}": "a" for number in range(2000)})
    assert server.ask(path, body=body, headers=headers).status == 400
    fields = "&".join(f"field{number}=a" for number in range(2000)).encode()
    told = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask(path, body=fields, headers=told).status == 400


def test_of_pictures_one_at_a_time_is_in_memory() -> None:
    at_once, most = [], []

    class Slow:
        def answer(self, _: object) -> CaptionAnswer:
            at_once.append(None)
            most.append(len(at_once))
            time.sleep(0.05)  # for the others to come meanwhile
            at_once.pop()
            return CaptionAnswer(bundle="slow", caption="")

    engine = Engine()
    engine.now = Loaded(runners={"caption": Slow()})
    app = application(engine, Counts(engine))
    body, headers = multipart("picture", picture())
    found = [(key.lower().encode(), value.encode()) for key, value in headers.items()]

    async def ask() -> None:
        scope = {"type": "http", "path": CAPTION, "method": "POST", "headers": found, "query_string": b""}
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200

        await app(scope, receive, send)

    async def story() -> None:
        await asyncio.gather(*(ask() for _ in range(4)))

    asyncio.run(story())
    assert most == [1, 1, 1, 1]


def test_nothing_of_an_upload_goes_to_the_disk() -> None:
    from starlette.formparsers import MultiPartParser

    application(Engine(), Counts(Engine()))
    assert MultiPartParser.spool_max_size > BODY


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("192.168.1.9", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_name_is_refused(server: RunningServer, host: str, status: int) -> None:
    assert server.ask("/card", headers={"Host": host}).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_ask(server: RunningServer, headers: dict[str, str]) -> None:
    assert server.ask(SENTIMENT, {"text": "good"}, headers).status == 403
    assert (
        server.ask(SENTIMENT, {"text": "good"}, {"Origin": f"http://127.0.0.1:{server.port}"}).status == 200
    )
    proxied = {"Host": "localhost", "Origin": "https://lab.example", "Sec-Fetch-Site": "same-origin"}
    assert server.ask(SENTIMENT, {"text": "good"}, proxied).status == 200


@pytest.mark.parametrize("path", ["/", "/card", "/style.css", "/no/such/path", NEAREST, "/health"])
def test_every_answer_lets_a_browser_load_nothing_from_elsewhere(server: RunningServer, path: str) -> None:
    headers = server.ask(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src data:; form-action 'self'")
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers


def test_the_page_escapes_whatever_it_shows(server: RunningServer) -> None:
    evil = '"><script>alert(1)</script>{{ 7 * 7 }}'
    for kind, field in (("nearest", "title"), ("sentiment", "text")):
        body, headers = multipart("none", b"", ask=kind, **{field: evil})
        answer = server.ask("/", body=body, headers=headers)
        assert answer.status == 200, answer.text
        assert "<script" not in answer.text
        assert "&lt;script&gt;" in answer.text
        assert "{{ 7 * 7 }}" in answer.text
    body, headers = multipart("none", b"", ask=evil)
    answer = server.ask("/", body=body, headers=headers)
    assert answer.status == 404
    assert "<script" not in answer.text


def test_the_page_answers_without_a_script(server: RunningServer) -> None:
    assert "<script" not in server.ask("/").text
    told = {"Content-Type": "application/x-www-form-urlencoded"}
    nearest = server.ask("/", body=b"ask=nearest&title=rain&k=2", headers=told).text
    assert '<a href="https://a.example/rain" rel="noopener noreferrer">Rain storm</a>' in nearest
    assert "0.100" in nearest and "weather" in nearest
    sentiment = server.ask("/", body=b"ask=sentiment&text=bad", headers=told).text
    assert "<strong>Negative</strong>, with a probability of 95.3" in sentiment
    body, headers = multipart("picture", picture(), ask="caption")
    caption = server.ask("/", body=body, headers=headers).text
    assert "<figcaption>a grey field</figcaption>" in caption
    shown = base64.b64decode(caption.partition("data:image/jpeg;base64,")[2].partition('"')[0])
    assert np.asarray(Image.open(io.BytesIO(shown))).mean().round() == 128


@pytest.mark.parametrize("charset", ["unicode_escape", "punycode", "idna", '"base64"', "no-such"])
def test_a_form_in_a_strange_charset_is_refused(server: RunningServer, charset: str) -> None:
    body, headers = multipart("picture", b"", ask="sentiment", text=r"good \ud800", **{r"\ud800": "a"})
    headers["Content-Type"] += f"; charset={charset}"
    answer = server.ask("/", body=body, headers=headers)
    assert (answer.status, answer.json["detail"]) == (415, "Text is understood in utf-8 alone.")


def test_a_form_in_a_usual_charset_is_answered(server: RunningServer) -> None:
    for charset in ("utf-8", "UTF-8", '"utf-8"'):
        told = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
        assert server.ask("/", body=b"ask=sentiment&text=good", headers=told).status == 200


def test_a_form_that_is_filled_in_wrongly_says_what_was_expected(server: RunningServer) -> None:
    told = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.ask("/", body=b"ask=nearest&title=rain&k=1000", headers=told)
    assert answer.status == 422
    assert "k: Input should be less than or equal to 100." in answer.text
    assert 'value="rain" aria-invalid="true" aria-describedby="nearest-fault"' in answer.text
    for body in (b"", b"ask=nothing", b"title=a", b"ask=caption"):
        answer = server.ask("/", body=body, headers=told)
        assert answer.status in (404, 415, 422), (body, answer.status)
        assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_no_request_harms_nobody(server: RunningServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while more := connection.recv(65536):
            found += more
    assert not found or found.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), found[:100]
    assert server.ask("/health").text == "ok"
    assert "Traceback" not in server.log


def test_a_network_that_fails_at_a_word_fails_for_this_question_alone(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> None:
    models = tmp_path_factory.mktemp("lab") / "models"
    short = {"text.onnx": served_bundles.text_network(np.zeros((2, 2)), "scores")}  # knows two words of eight
    served_bundles.choose(models, served_bundles.write("sentiment", "mood", short, models))
    with RunningServer(models, free_port()) as server:
        answer = server.ask(SENTIMENT, {"text": "good secret"})
        assert answer.status == 500
        assert answer.json == {"detail": "The network could not answer this. The server's log says why."}
        told = {"Content-Type": "application/x-www-form-urlencoded"}
        page = server.ask("/", body=b"ask=sentiment&text=good+secret", headers=told)
        assert (page.status, "could not answer this" in page.text) == (500, True)
        assert server.ask(SENTIMENT, {"text": "else"}).status == 200
        assert "secret" not in server.log
        assert "News like this one" not in page.text, "only what the bundles can do is shown"
        assert server.ask(NEAREST, {"title": "a"}).status == 404


def test_with_a_token_only_who_knows_it_is_answered(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> None:
    models = tmp_path_factory.mktemp("lab") / "models"
    served_bundles.choose(models, served_bundles.write("sentiment", "mood", models=models))
    with RunningServer(models, free_port(), SERVE_TOKEN="räub-9à") as server:
        assert {server.ask(path).status for path in ("/health", "/ready")} == {200}
        for path in ("/", "/card", "/metrics", "/openapi.json", "/style.css", "/no/such/path"):
            assert server.ask(path).status == 401
        token = "räub-9à".encode()
        basic = base64.b64encode(b"me:" + token).decode()
        for good in (f"Bearer {token.decode('latin-1')}", f"basic {basic}"):
            assert server.ask(SENTIMENT, {"text": "good"}, {"Authorization": good}).status == 200
        for bad in (
            "",
            "Bearer",
            "Bearer räub-9",
            f"Basic {basic[:-3]}",
            "Basic !",
            f"Digest {basic}",
            "räub-9à",
        ):
            answer = server.ask(SENTIMENT, {"text": "good"}, {"Authorization": bad})
            assert answer.status == 401, bad
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert "räub" not in server.log
