"""What stands behind JupyterLab's login: who gets to it, what it learns, and what it can do there."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tornado import web
from tornado.wsgi import WSGIContainer

from behind_the_door import POLICY, TOKEN, Hostile, Lab, jupyter
from project import module
from tornado_server import connect, served
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

doors = module("jupyter/doors.py")
guard = module("tensorboard/guard.py")

NAMES = ("board", "tensorboard", "serve")


def tensorboard(environ: dict, start_response: Callable) -> list[bytes]:
    """What stands behind the real guard, in TensorBoard's place."""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Security-Policy", POLICY)])
    length = len(environ["wsgi.input"].read())
    return [f"served {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {length}".encode()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Lab]:
    """A server before a board that tells what it was asked, TensorBoard's guard, and a hostile service."""
    inside = guard.never_silent(guard.arranged(tensorboard))
    guarded = lambda: guard.Guard(WSGIContainer(inside, ThreadPoolExecutor(2)))  # noqa: E731
    with (
        served(guarded) as board,
        served(lambda: web.HTTPServer(web.Application([(".*", Hostile)]))) as hostile,
    ):
        where = {"TENSORBOARD_AT": f"127.0.0.1:{board}", "SERVE_AT": f"127.0.0.1:{hostile}"}
        folder = tmp_path_factory.mktemp("lab")
        with jupyter(folder, free_port(), SERVE_TOKEN="of-the-service", **where) as lab:
            yield lab


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """Some other program of this machine, and what it was asked."""
    asked: list[str] = []

    class Other(web.RequestHandler):
        def prepare(self) -> None:
            asked.append(self.request.uri)
            self.finish("mine")

    with served(lambda: web.HTTPServer(web.Application([(".*", Other)]))) as port:
        yield port, asked


def echo(answer: tuple) -> dict:
    assert answer[0] == 200, answer[1]
    return json.loads(answer[1])


def upgrade(lab: Lab, path: str, **headers: str) -> int:
    """Return the status by which a WebSocket is answered."""
    told = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Host": f"127.0.0.1:{lab.port}",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    with connect(lab.port) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return int(client.recv(1000).split()[1])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_handed_on_without_the_login(lab, name):
    stranger, knows_the_path = f"/{name}/", f"{lab.base}{name}/"
    for path, status in ((stranger, 403), (knows_the_path, 302)):
        assert lab.ask(path)[0] == status
        assert lab.ask(path, "POST", b"x")[0] == 403
    location = lab.ask(knows_the_path)[2]["Location"]
    assert location.startswith(f"{lab.base}login?next=")
    for path in (stranger, knows_the_path):
        assert upgrade(lab, path) == 403
    assert lab.ask(knows_the_path, Cookie="username-127-0-0-1=2|1:0|forged; _xsrf=2|a|b|1")[0] == 302


@pytest.mark.parametrize("name", NAMES)
def test_with_the_login_each_answers_and_with_the_token_too(lab, name):
    assert lab.browse(f"{name}/x")[0] == 200
    assert lab.with_token(f"/{name}/x")[0] == 200


@pytest.mark.parametrize("name", NAMES)
def test_no_websocket_is_handed_on(lab, name):
    cookie = "; ".join(f"{key}={value}" for key, value in lab.cookies.items())
    assert upgrade(lab, f"{lab.base}{name}/", Cookie=cookie) == 400


def test_a_page_of_another_origin_opens_no_websocket_of_a_kernel_either(lab):
    path = f"{lab.base}api/kernels/00000000-0000-0000-0000-000000000000/channels"
    cookie = "; ".join(f"{key}={value}" for key, value in lab.cookies.items())
    assert upgrade(lab, path, Cookie=cookie, Origin="http://evil.example") in (403, 404)
    assert upgrade(lab, path, Cookie=cookie, Origin=f"http://127.0.0.1:{lab.port + 1}") in (403, 404)


@pytest.mark.parametrize("form", ["{port}", "127.0.0.1:{port}", "localhost:{port}", "absolute/{port}"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_port_of_the_machine_is_reached(lab, listener, form, method):
    port, asked = listener
    for below in (form, f"absolute/{form}"):
        path = f"proxy/{below.format(port=port)}/x"
        assert lab.browse(path, method, b"" if method == "POST" else None)[0] in (403, 404)
        assert lab.with_token(f"/{path}", method)[0] == 404
        assert upgrade(lab, f"{lab.base}{path}", Authorization=f"token {TOKEN}") == 404
    assert not asked


@pytest.mark.slow
def test_the_library_s_own_extension_opens_every_port_whatever_hosts_it_allows(tmp_path, free_port, listener):
    """Why it is off. Where this fails, `host_allowlist` has come to mean what one would think."""
    port, asked = listener
    on = ["--ServerApp.jpserver_extensions=jupyter_server_proxy=True", "--ServerProxy.host_allowlist=[]"]
    with jupyter(tmp_path, free_port(), *on) as lab:
        assert lab.with_token(f"/proxy/{port}/x")[:2] == (200, "mine")
    assert asked == ["/x"]


def test_the_board_is_told_of_the_cookies_the_one_that_guards_its_forms(lab):
    told = echo(lab.browse("board/one?a=1&token=wrong", X_Seen="a1", HX_Request="true", Referer="http://x/"))
    assert told["path"] == "/one?a=1"
    assert told["headers"]["cookie"] == f"_xsrf={lab.cookies['_xsrf']}"
    assert told["headers"]["host"] == f"127.0.0.1:{lab.port}"
    assert told["headers"]["x-forwarded-context"] == f"{lab.base}board"
    assert (told["headers"]["x-seen"], told["headers"]["hx-request"]) == ("a1", "true")
    assert not {"authorization", "referer"} & told["headers"].keys()
    assert "authorization" not in echo(lab.with_token("/board/", X_Forwarded_Host="evil"))["headers"]


def test_the_columns_of_the_board_s_table_are_kept_and_nothing_else_is(lab):
    headers = lab.browse("board/columns")[2]
    assert "columns=run%2Cmargin; Path=/of-the-board/; HttpOnly" in headers.get_all("Set-Cookie")
    lab.cookies.pop("columns")
    kept = lab.cookies | {"columns": "run%2Cmargin", "username": "me"}
    fresh = Lab(lab.process, lab.port, lab.folder, lab.base, kept)
    told = echo(fresh.browse("board/"))
    assert told["headers"]["cookie"] == f"_xsrf={fresh.cookies['_xsrf']}; columns=run%2Cmargin"
    fresh.cookies["columns"] = "a\\073b"
    assert "columns" not in echo(fresh.browse("board/"))["headers"]["cookie"]


def test_what_a_browser_says_of_the_way_here_is_not_believed(lab):
    told = echo(lab.browse("board/", X_Forwarded_Context="/evil", X_Forwarded_Host="evil.example"))["headers"]
    assert told["x-forwarded-context"] == f"{lab.base}board"
    assert "x-forwarded-host" not in told


def test_the_first_page_of_the_board_sets_the_cookie_that_it_is_told(lab):
    known = {name: value for name, value in lab.cookies.items() if name != "_xsrf"}
    fresh = Lab(lab.process, lab.port, lab.folder, lab.base, known)
    told = echo(fresh.browse("board/"))
    assert told["headers"]["cookie"] == f"_xsrf={fresh.cookies['_xsrf']}"


def test_a_form_reaches_the_board_with_the_cookie_s_value_alone(lab):
    lab.browse("board/")
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    status, text, _ = lab.browse("board/do/delete", "POST", b"run=x", **kind)
    assert (status, "load it again" in text, "<h1>" in text) == (403, True, True)
    status, text, headers = lab.browse("board/do/delete", "POST", b"run=x", **kind, HX_Request="true")
    assert (status, text) == (403, "No page of the board has sent this, or an old one: load it again.")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert lab.browse("board/do/delete", "POST", b"_xsrf=2|a|b|1", **kind)[0] == 403
    right = f"_xsrf={lab.cookies['_xsrf']}&run=x".encode()
    told = echo(lab.browse("board/do/delete", "POST", right, **kind))
    assert (told["method"], told["path"], told["body"]) == ("POST", "/do/delete", right.decode())
    assert echo(lab.browse("board/do/delete", "POST", b"", X_XSRFToken=lab.cookies["_xsrf"]))
    assert lab.browse("board/do/delete", "POST", right, **kind, Origin="http://evil.example")[0] == 403


def test_those_beside_the_board_learn_no_secret_of_jupyterlab(lab):
    told = echo(lab.browse("serve/api?x=1&token=a", Referer=f"http://127.0.0.1:{lab.port}{lab.base}lab"))
    assert told["uri"] == "/api?x=1"
    assert told["headers"]["host"] == "localhost"
    assert told["headers"]["authorization"] == "Bearer of-the-service"
    assert not {"cookie", "referer", "origin", "sec-fetch-site"} & told["headers"].keys()
    by_script = lab.with_token("/serve/api", "POST", b"question", Cookie="a=1")
    assert echo(by_script)["headers"]["authorization"] == "Bearer of-the-service"
    assert TOKEN not in by_script[1] and "cookie" not in echo(by_script)["headers"]


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream"])
def test_an_answer_sets_no_cookie_and_opens_nothing_to_others(lab, accept):
    for path in ("serve/x", "board/x"):
        cookies = dict(lab.cookies)
        status, _, headers = lab.browse(path, Accept=accept)
        assert status == 200
        assert "somebody" not in str(headers) and lab.cookies == cookies
        assert not {"access-control-allow-origin", "service-worker-allowed", "refresh"} & {
            name.lower() for name in headers
        }
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_may_load_and_ask_nothing_but_its_own_folder(lab):
    policy = lab.browse("serve/")[2]["Content-Security-Policy"]
    folder = f"127.0.0.1:{lab.port}{lab.base}serve/"
    wanted = f"default-src {folder}; script-src {folder} 'unsafe-eval'; connect-src {folder}"
    assert policy == f"{wanted}; frame-ancestors 'self'"


@pytest.mark.parametrize("kind", ["image/svg+xml", "text/plain", "application/json"])
def test_what_has_no_policy_of_its_own_runs_no_script_as_a_page(lab, kind):
    _, text, headers = lab.browse(f"serve/picture?kind={kind}")
    assert "sandbox" in headers["Content-Security-Policy"] and text
    for script in ("kind=text/javascript", "known=1"):  # the second is answered with 304
        _, _, headers = lab.browse(f"serve/worker.js?{script}")
        assert "Content-Security-Policy" not in headers, "a worker's script would be bound by it"


@pytest.mark.parametrize(
    "to",
    [
        "http://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "../lab",
        "/x/../../lab",
        "/%2e%2e/lab",
        "/..%2flab",
    ],
)
def test_a_redirect_of_what_answers_leads_nowhere_else(lab, to):
    status, text, headers = lab.browse(f"serve/?to={to.replace('%', '%25')}".replace("\t", "%09"))
    assert status == 502 and "Location" not in headers
    assert "evil.example" not in text


@pytest.mark.parametrize(("to", "found"), [("/x?y=1", "{}serve/x?y=1"), ("?y=1", "?y=1"), ("x", "x")])
def test_a_redirect_within_the_folder_stays_in_it(lab, to, found):
    assert lab.browse(f"serve/?to={to.replace('?', '%3F')}")[2]["Location"] == found.format(lab.base)


def test_a_redirect_that_knows_where_it_is_looked_at_is_not_led_below_itself(lab):
    status, _, headers = lab.browse(f"serve/?to={lab.base}serve/run/x")
    assert (status, headers["Location"]) == (302, f"{lab.base}serve/run/x")


@pytest.mark.parametrize(
    "path",
    [
        "board/../api/contents",
        "board/%2e%2e/api/contents",
        "board/..%2fapi/contents",
        "board/%252e%252e/api/contents",
        "serve/..\\lab",
        "tensorboard/data/../../lab",
    ],
)
def test_no_path_leads_out_of_its_folder(lab, path):
    assert lab.browse(path)[0] == 404
    assert lab.ask(f"/{path}")[0] == 403


@pytest.mark.parametrize("path", ["board//evil.example", "board/http://evil.example/", "board/@evil.example"])
def test_an_address_within_an_address_is_a_path(lab, path):
    assert echo(lab.browse(path))["path"] == path.removeprefix("board")


def test_a_path_is_handed_on_as_it_was_sent(lab):
    assert echo(lab.browse("board/run/a%3Fb%23c%25d%20e+f?q=%26"))["path"] == "/run/a%3Fb%23c%25d%20e+f?q=%26"


def test_an_address_without_the_last_slash_is_sent_into_the_folder_and_nowhere_else(lab):
    assert lab.browse("board?x=1")[2]["Location"] == f"{lab.base}board/?x=1"
    assert lab.ask("//evil.example/board")[0] == 403


def test_the_token_leaves_the_address_of_a_page(lab):
    _, _, headers = lab.ask(f"/board/?run=x&token={TOKEN}")
    assert headers["Location"] == f"{lab.base}board/?run=x&token={TOKEN}"
    status, _, headers = lab.ask(headers["Location"], Accept="text/html")
    assert (status, headers["Location"]) == (302, f"{lab.base}board/?run=x")
    assert "username" in str(headers.get_all("Set-Cookie"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_a_page_of_another_origin_is_refused(lab, name, headers):
    for method in ("GET", "POST"):
        assert lab.browse(f"{name}/x", method, b"" if method == "POST" else None, **headers)[0] == 403


@pytest.mark.parametrize("name", NAMES)
def test_a_link_from_elsewhere_may_be_followed(lab, name):
    assert lab.browse(f"{name}/x", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8888", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_name_that_was_led_here_is_refused(lab, name, host):
    assert lab.browse(f"{name}/", Host=host)[0] == 403
    assert lab.with_token(f"/{name}/", Host=host)[0] == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(lab, method):
    assert {lab.with_token(f"/{name}/", method)[0] for name in NAMES} <= {403, 405}


def test_tensorboard_s_guard_takes_what_the_door_hands_on(lab):
    status, _, headers = lab.browse("tensorboard/", Origin=f"http://127.0.0.1:{lab.port}")
    assert (status, headers["Location"].partition("=")[0]) == (302, "?pinnedCards"), "right below this path"
    shown = lab.browse(f"tensorboard/{headers['Location']}")
    assert shown[1] == "served GET / 0"
    asked = lab.browse("tensorboard/data/x", "POST", b"abc", Origin=f"http://127.0.0.1:{lab.port}")
    assert asked[1] == "served POST /data/x 3"
    large = lab.browse("tensorboard/data/x", "POST", b"x" * (guard.BODY + 1))
    assert large[0] in (413, 503), "its answer comes before the end of the question, and may be lost"


def test_what_does_not_run_is_told_in_a_sentence(lab, tmp_path, free_port):
    where = {"TENSORBOARD_AT": f"127.0.0.1:{free_port()}", "SERVE_AT": "no-such-host.invalid:8000"}
    failing = "#!/bin/sh\necho started >>starts\nexit 2\n"
    with jupyter(tmp_path, free_port(), board=failing, **where) as absent:
        for name, says in (("board", "make logs"), ("tensorboard", "make up"), ("serve", "make serve")):
            status, text, _ = absent.browse(f"{name}/")
            assert (status, says in text) == (503, True)
            assert "Traceback" not in text
        assert absent.browse("board/")[0] == 503
        assert (tmp_path / "starts").read_text() == "started\n", "not again at once"
        assert "Traceback" not in absent.log


def test_a_board_that_died_is_started_anew_with_the_next_request(lab):
    before = echo(lab.browse("board/"))["pid"]
    assert lab.browse("board/die")[0] == 503
    assert echo(lab.browse("board/"))["pid"] != before


def test_many_who_come_at_once_start_one_board(lab):
    lab.browse("board/die")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: echo(lab.browse("board/"))["pid"], range(16)))
    assert len(found) == 1


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_board_ends_with_jupyterlab_and_jupyterlab_ends_in_order(tmp_path, free_port, sent):
    with jupyter(tmp_path, free_port()) as lab:
        board = echo(lab.browse("board/"))["pid"]
        lab.process.send_signal(sent)
        lab.process.wait(20)
        until(lambda: not is_alive(board), "the board's end")
        assert ("Shutting down" in lab.log) == (sent == signal.SIGTERM), (
            "the library takes SIGTERM for itself"
        )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_launcher_shows_the_board_and_tensorboard_with_pictures(lab):
    known = json.loads(lab.browse("server-proxy/servers-info")[1])["server_processes"]
    assert [each["launcher_entry"]["title"] for each in known] == ["Board", "TensorBoard"]
    for each in known:
        assert each["new_browser_tab"]
        _, text, headers = lab.browse(each["launcher_entry"]["icon_url"].removeprefix(lab.base))
        assert headers["Content-Type"] == "image/svg+xml" and text.startswith("<svg")


def test_a_thousand_connections_that_say_little_stop_nobody_at_work(lab):
    """As fast as they can be opened; meanwhile somebody who is logged in looks at the board."""
    waits, over = [], threading.Event()

    def work() -> None:
        while not over.is_set():
            since = time.monotonic()
            assert lab.browse("board/")[0] == 200
            waits.append(time.monotonic() - since)

    with ThreadPoolExecutor(1) as pool, ExitStack() as open_ones:
        worker = pool.submit(work)
        for _ in range(1000):
            each = open_ones.enter_context(socket.create_connection(("127.0.0.1", lab.port), timeout=20))
            each.sendall(b"POST /board/ HTTP/1.1\r\nHost: local")
        until(lambda: len(waits) > 20, "twenty answers")
        over.set()
        worker.result()
    assert max(waits) < 5
    assert lab.ask("/api")[0] == 200


def test_a_policy_names_no_folder_that_it_cannot_write():
    assert doors.scoped("script-src 'self'", "[::1]:8888/x/") == "script-src 'self'"
    assert (
        doors.scoped("img-src 'self'; frame-ancestors 'self'", "a:1/x/")
        == "img-src a:1/x/; frame-ancestors 'self'"
    )
