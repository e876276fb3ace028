"""The entrance of a shared JupyterLab: who gets in, what is read of whoever does not."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import stat
import sys
import time
from http.client import HTTPMessage
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from jupyter_server.auth.security import passwd
from tornado import web
from traitlets.config import Config

from project import CHECKOUT
from tornado_server import ask, connect, half_open, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sys.path.append(str(CHECKOUT / "jupyter"))
shared = importlib.import_module("shared")

NAME, PASSWORD, TOKEN = "lab.example.org", "correct horse battery", "a-given-token"
BASE = "/0123456789abcdef/"
ORIGIN = f"https://{NAME}"
FEW = 8  # connections of strangers, in these tests


class Inside(web.RequestHandler):
    """What lies behind the entrance: says what reached it, and as what."""

    def answer(self) -> None:
        self.write(f"inside {self.request.path} {len(self.request.body)} {bool(shared.session_of(self))}")

    get = post = put = answer


@pytest.fixture(scope="module")
def hashed() -> str:
    return passwd(PASSWORD)


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The file that keeps who has logged out."""
    return tmp_path / "data/ended.json"


@pytest.fixture
def lab(hashed: str, ended: Path) -> shared.Lab:
    return shared.Lab(NAME, 443, hashed, TOKEN, ended)


@pytest.fixture
def port(lab: shared.Lab) -> Iterator[int]:
    """A server behind the entrance."""
    settings = {"base_url": BASE, "identity_provider": SimpleNamespace(token=TOKEN)}
    with served(lambda: shared.Entrance(web.Application([(".*", Inside)], **settings), lab=lab)) as port:
        yield port


def call(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
    return ask(port, path, method, body, **{"Host": NAME, **headers})


def log_in(port: int, password: str = PASSWORD, to: str = "", **headers: str) -> tuple[int, str, HTTPMessage]:
    body = urlencode({"password": password, "next": to}).encode()
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Origin": ORIGIN, **headers}
    return call(port, "/login", "POST", body, **headers)


def cookies(headers: HTTPMessage) -> str:
    return "; ".join(each.partition(";")[0] for each in headers.get_all("Set-Cookie", []))


@pytest.fixture
def cookie(port: int) -> str:
    """What a browser sends that was let in."""
    return cookies(log_in(port)[2])


PLACES = [
    "/",
    "/lab",
    "/api",
    "/api/contents",
    f"{BASE}lab",
    f"{BASE}api/contents",
    "//api",
    "/files/x",
    "/logout",
]


@pytest.mark.parametrize("path", [*PLACES, f"/lab?token={TOKEN}", f"{BASE}api/contents?token={TOKEN}"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("given", ["", f"token {TOKEN}"])
def test_a_stranger_reaches_nothing_but_the_page_not_even_with_the_token(port, path, method, given):
    status, text, headers = call(port, path, method, **{"Authorization": given} if given else {})
    assert "inside" not in text and "Set-Cookie" not in headers
    if status == 303:
        assert method == "GET" and headers["Location"].startswith("/login?next=%2F")
    else:
        assert status == 403


def test_the_page_asks_for_the_password_loads_nothing_and_is_in_no_frame(port):
    status, text, headers = call(port, "/login?next=%22%3E%3Cscript%3E")
    assert status == 200 and 'type="password"' in text
    assert "<script>" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "same-origin", "with none a browser's POST names no origin"


def test_the_password_lets_in_by_a_cookie_that_no_script_reads_and_no_other_site_sends(port, cookie):
    status, _, headers = log_in(port, to="/lab/tree/a.ipynb?x=1")
    assert (status, headers["Location"]) == (303, f"{BASE}lab/tree/a.ipynb?x=1")
    given = headers.get_all("Set-Cookie")
    assert {each.partition("=")[0] for each in given} == {"__Host-trainlab", "__Host-trainlab-known"}
    for each in given:
        assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(each.split("; "))
        assert "Domain" not in each
    assert call(port, f"{BASE}lab", Cookie=cookie)[:2] == (200, f"inside {BASE}lab 0 True")
    assert call(port, "/api/contents", "PUT", b"abc", Cookie=cookie)[1] == f"inside {BASE}api/contents 3 True"
    status, _, headers = call(port, "/board/compare?runs=a,b", Cookie=cookie)
    assert (status, headers["Location"]) == (302, f"{BASE}board/compare?runs=a,b")


def test_every_answer_says_that_the_name_is_for_https_alone(port, cookie):
    for answer in (
        call(port, "/lab"),
        call(port, "/login"),
        call(port, "/lab", Cookie=cookie),
        call(port, "/api"),
    ):
        assert answer[2]["Strict-Transport-Security"] == "max-age=2592000"


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD.upper(), f" {PASSWORD}", TOKEN, "x" * 3000])
def test_another_password_lets_nobody_in(port, password):
    status, text, headers = log_in(port, password)
    assert status == 401 and "not the password" in text
    assert "Set-Cookie" not in headers


@pytest.mark.parametrize("made", ["forged", "of another password", "of another name", "old", "of two"])
def test_a_cookie_that_was_not_given_here_opens_nothing(port, lab, cookie, made, monkeypatch):
    if made == "forged":
        cookie = cookie.replace("|", "x")
    elif made == "of another password":
        other = shared.Lab(NAME, 443, passwd("another password"), TOKEN, lab._file)
        cookie = f"{shared.SESSION}={other.signed(shared.SESSION)}"
    elif made == "of another name":
        cookie = f"{shared.SESSION}={lab.signed(shared.KNOWN)}"
    elif made == "of two":
        cookie = f"{shared.KNOWN}={lab.signed(shared.KNOWN)}"
    else:
        now = time.time() + shared.SESSION_DAYS * 86400 + 60
        monkeypatch.setattr("tornado.web.time.time", lambda: now)
    assert call(port, f"{BASE}lab", Cookie=cookie)[0] == 303


def test_who_is_in_is_led_on_by_the_page_and_may_log_in_again(port, cookie):
    status, _, headers = call(port, "/login?next=/lab", Cookie=cookie)
    assert (status, headers["Location"]) == (303, f"{BASE}lab")
    assert log_in(port, Cookie=cookie)[0] == 303, "from a tab that was left open"


def test_who_logs_out_is_out_with_every_copy_of_the_cookie(port, lab, cookie):
    session = lab.session(HTTPMessageOf(cookie))
    assert session
    lab.end(session)
    assert call(port, f"{BASE}lab", Cookie=cookie)[0] == 303


def test_who_has_logged_out_is_out_after_a_restart_too_and_others_are_in(lab, hashed, ended, monkeypatch):
    gone, stays = (f"{shared.SESSION}={lab.signed(shared.SESSION)}" for _ in range(2))
    lab.end(lab.session(HTTPMessageOf(gone)))
    assert stat.S_IMODE(ended.stat().st_mode) == 0o600
    anew = shared.Lab(NAME, 443, hashed, TOKEN, ended)
    assert not anew.session(HTTPMessageOf(gone)) and anew.session(HTTPMessageOf(stays))
    late = time.time() + shared.SESSION_DAYS * 86400 + 60
    monkeypatch.setattr(shared.time, "time", lambda: late)
    anew.end("another")
    assert list(json.loads(ended.read_text())["ended"]) == ["another"], "what no cookie outlives is not kept"
    assert [path.name for path in ended.parent.iterdir()] == [ended.name]


def test_where_a_log_out_cannot_be_kept_it_counts_until_a_restart(lab, ended):
    shutil.rmtree(ended.parent)
    ended.parent.write_text("no folder")
    session = f"{shared.SESSION}={lab.signed(shared.SESSION)}"
    lab.end(lab.session(HTTPMessageOf(session)))
    assert not lab.session(HTTPMessageOf(session))


@pytest.mark.parametrize("text", ["", "[]", '{"ended": {}}', '{"drawn": "a", "ended": {"b": null}}'])
def test_a_file_that_does_not_tell_who_has_logged_out_lets_nobody_in(lab, hashed, ended, text):
    session = f"{shared.SESSION}={lab.signed(shared.SESSION)}"
    before = ended.read_text()
    ended.write_text(text)
    for _ in range(2):  # nor after one more restart
        anew = shared.Lab(NAME, 443, hashed, TOKEN, ended)
        assert not anew.session(HTTPMessageOf(session))
        assert anew.session(HTTPMessageOf(f"{shared.SESSION}={anew.signed(shared.SESSION)}"))
    ended.write_text(before)
    assert shared.Lab(NAME, 443, hashed, TOKEN, ended).session(HTTPMessageOf(session)), "the file did it"


class HTTPMessageOf(dict):
    """Headers with a cookie."""

    def __init__(self, cookie: str) -> None:
        super().__init__({"Cookie": cookie})


OTHERS = [
    "evil.example",
    f"{NAME}.evil.example",
    f"evil.{NAME}",
    "127.0.0.1",
    "localhost",
    f"{NAME}:8888",
    f"{NAME}.",
]


@pytest.mark.parametrize("host", OTHERS)
def test_another_name_is_refused_whoever_asks(port, cookie, host):
    for path in ("/login", "/lab", f"{BASE}api/contents"):
        status, text, headers = call(port, path, Host=host, Cookie=cookie)
        assert status == 403 and "inside" not in text and "Location" not in headers
    assert log_in(port, Host=host)[0] == 403


def test_another_port_than_443_is_part_of_the_name(hashed, ended):
    assert shared.Lab(NAME, 8443, hashed, "", ended).host == f"{NAME}:8443"


FOREIGN = [{"Origin": "https://evil.example"}, {"Origin": f"http://{NAME}"}, {"Origin": "null"}]
FOREIGN += [{"Origin": f"{ORIGIN}:444"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}]


@pytest.mark.parametrize("page", FOREIGN, ids=str)
def test_a_page_of_another_origin_posts_nothing_and_opens_no_websocket(port, lab, cookie, page):
    assert log_in(port, **page)[0] == 403
    for method in ("POST", "PUT", "DELETE"):
        assert call(port, f"{BASE}api/contents", method, b"x", Cookie=cookie, **page)[0] == 403
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert call(port, f"{BASE}api/kernels/1/channels", Cookie=cookie, **upgrade, **page)[0] == 403
    assert lab.throttle.ask("127.0.0.1") == 0
    assert lab.throttle._strangers.wrong == 1, "a foreign page makes nobody wait: this one is the test's own"


def test_a_stranger_s_websocket_is_refused_and_not_led_to_the_page(port):
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert call(port, f"{BASE}api/kernels/1/channels", **upgrade)[0] == 403


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "///evil.example",
        "@evil.example",
        "/..//evil.example",
        "javascript:alert(1)",
        f"{BASE}/evil.example",
        f"{BASE}\\\\evil.example",
        ".evil.example",
    ],
)
def test_whatever_next_says_the_way_leads_below_the_path_and_nowhere_else(port, cookie, to):
    place = log_in(port, to=to)[2]["Location"]
    assert place.startswith(BASE) and not re.match(r"[/\\]", place.removeprefix(BASE))
    if to.startswith("/"):
        place = call(port, to, Cookie=cookie)[2].get("Location", BASE)
        assert place.startswith(BASE) and not re.match(r"[/\\]", place.removeprefix(BASE))


def test_a_header_that_next_would_add_is_not_added(port):
    _, _, headers = log_in(port, to="/lab\r\nSet-Cookie: evil=1")
    assert "evil" not in cookies(headers)


@pytest.mark.parametrize("length", [b"Content-Length: 50000000", b"Transfer-Encoding: chunked"])
def test_of_a_large_body_for_the_page_little_is_read(port, length):
    sent, piece = 0, b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with connect(port) as stranger:
        stranger.sendall(f"POST /login HTTP/1.1\r\nHost: {NAME}\r\n".encode() + length + b"\r\n\r\n")
        try:
            while sent < 50_000_000:
                stranger.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
    assert sent < 20_000_000
    assert log_in(port)[0] == 303


def test_a_body_that_does_not_end_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(shared, "LOGIN_SECONDS", 0.2)
    with connect(port) as stranger:
        stranger.sendall(f"POST /login HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100\r\n\r\npass".encode())
        while stranger.recv(4096):
            pass


def test_half_open_connections_stop_nobody(port, monkeypatch):
    monkeypatch.setattr("door.STRANGERS", FEW)
    with half_open(port, 5 * FEW, lambda: call(port, "/login")[0] == 200):
        assert log_in(port)[0] == 303


def test_wrong_passwords_make_wait_and_the_right_one_is_not_looked_at_meanwhile(port, cookie):
    assert [log_in(port, "wrong")[0] for _ in range(5)] == [401] * 5
    status, text, headers = log_in(port)
    assert status == 429 and headers["Retry-After"] in ("1", "2")
    assert "Set-Cookie" not in headers and "Too many wrong passwords" in text
    time.sleep(float(headers["Retry-After"]))  # the wait itself is the subject
    assert log_in(port)[0] == 303


def test_a_browser_that_was_in_before_does_not_wait_for_the_guesses_of_others(port, cookie):
    known = cookie.split("; ")[1]
    assert known.startswith(shared.KNOWN)
    assert [log_in(port, "wrong")[0] for _ in range(6)] == [401] * 5 + [429]
    assert log_in(port, Cookie=known)[0] == 303


def test_without_share_nothing_is_set(monkeypatch):
    monkeypatch.delenv("SHARE", raising=False)
    config = Config()
    shared.settle(config, TOKEN)
    assert config == Config()


@pytest.mark.parametrize(
    "hashed", ["", "sha1:0e112c3ddfce:a68df677475c2b47b6e86d0467eec97ac5f4b85a", PASSWORD]
)
def test_without_a_password_by_argon2_the_server_does_not_start(monkeypatch, hashed):
    monkeypatch.setenv("SHARE", NAME)
    monkeypatch.setenv("SHARE_PASSWORD_HASH", hashed)
    with pytest.raises(SystemExit, match="make password"):
        shared.settle(Config(), TOKEN)


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 43200), ("30m", 1800), ("90s", 90), ("2d", 172800), ("0", 0)]
)
def test_a_time_is_read(text, seconds):
    assert shared.seconds(text) == seconds


@pytest.mark.parametrize("text", ["12", "h", "-1h", "1.5h", "00", "1 h", "12H"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SystemExit, match="no time such as 12h"):
        shared.seconds(text)
