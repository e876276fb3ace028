"""A stack shared without Docker: JupyterLab's own TLS, driven with `make` and over HTTPS."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
import websocket

from project import Project, clean_environment, status_of
from terminal import in_terminal
from visitor import Visitor
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

NAME, PASSWORD = "lab.example.org", "correct horse battery"
TRAINS = """
import threading, time, trainlab
def train():
    with trainlab.Run("thread", monitor=False):
        time.sleep({seconds})
threading.Thread(target=train).start()
print(1)
"""
IDLE = 6  # seconds after which a kernel is culled, in these tests


@pytest.fixture(scope="module")
def shared(local_project: Project, free_port: Callable[[], int]) -> Project:
    """The stack, shared on loopback."""
    local_project.environment |= {"SHARE_PORT": str(free_port()), "SHARE_ADDRESS": "127.0.0.1"}
    local_project.environment |= {"SHARE_CULL": f"{IDLE}s"}
    command = ["make", "password"]
    environment = clean_environment() | local_project.environment
    with in_terminal(command, local_project.folder, environment) as terminal:
        for question in ("or more): ", "Once more: "):
            terminal.until(question)
            terminal.type(f"{PASSWORD}\n")
        assert "wrote SHARE_PASSWORD_HASH" in terminal.until("")
    local_project.make("up", f"SHARE={NAME}")
    return local_project


@pytest.fixture
def visitor(shared: Project) -> Visitor:
    certificate = shared.folder / ".stack/share/server.crt"
    return Visitor(NAME, int(shared.environment["SHARE_PORT"]), certificate)


def test_status_prints_the_address_and_neither_token_nor_password(shared, visitor):
    said = shared.make("status").stdout
    assert f"JupyterLab   https://{visitor.host}/lab" in said
    assert re.search(r"share +healthy", said)
    assert ".stack/share/server.crt" in said
    assert shared.token not in said and PASSWORD not in said


def test_the_certificate_is_for_this_name_alone_and_its_key_is_closed_to_others(shared, visitor):
    folder = shared.folder / ".stack/share"
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("server.key", "server.crt")} == {0o600}
    command = ["openssl", "x509", "-in", folder / "server.crt", "-noout", "-text"]
    text = subprocess.check_output(command, text=True)
    assert f"DNS:{NAME}\n" in text and "CA:FALSE" in text
    with pytest.raises(ssl.SSLCertVerificationError):
        visitor.connect("evil.example")
    with visitor.connect() as connection:
        assert connection.version() == "TLSv1.3"


def test_the_password_opens_jupyterlab_and_a_kernel_computes_over_its_websocket(visitor):
    page = visitor.ask("/lab")
    assert (page.status, page.headers["Location"]) == (303, "/login?next=%2Flab")
    base = visitor.enter(PASSWORD)
    assert visitor.execute(base, "print(1 + 1)") == "2\n"


def test_neither_kernels_nor_logs_know_the_password_s_hash(shared, visitor):
    code = "import os; print(sorted(name for name in os.environ if 'HASH' in name or 'TOKEN' in name))"
    assert visitor.execute(visitor.enter(PASSWORD), code) == "[]\n"
    logs = "".join(path.read_text() for path in (shared.folder / ".stack").glob("*.log"))
    assert "argon2" not in logs and PASSWORD not in logs


def test_jupyter_s_own_cookies_go_by_https_alone_and_to_its_own_path(visitor):
    base = visitor.enter(PASSWORD)
    given = [line for line in visitor.ask(f"{base}lab").cookies if not line.startswith("__Host-")]
    visitor.jar = {name: value for name, value in visitor.jar.items() if name.startswith("__Host-")}
    given += visitor.ask(f"{base}lab").cookies
    assert {line.partition("=")[0].partition("-")[0] for line in given} >= {"_xsrf", "username"}
    for line in given:
        assert {"Secure", "SameSite=Lax", f"Path={base}"} <= set(line.split("; "))
        assert "HttpOnly" in line or line.startswith("_xsrf"), "which JupyterLab's own script sends back"


def test_what_changes_something_needs_the_xsrf_token_too(visitor):
    base = visitor.enter(PASSWORD)
    assert visitor.ask(f"{base}api/kernels", "POST", "{}").status == 403
    assert visitor.ask(f"{base}api/contents/notebooks/x.txt", "DELETE").status == 403


def test_another_origin_opens_no_websocket_to_a_kernel(visitor):
    base = visitor.enter(PASSWORD)
    for origin in ("https://evil.example", f"https://{NAME}:1", "null"):
        with pytest.raises(websocket.WebSocketBadStatusException):
            visitor.open_socket(f"{base}api/events/subscribe", origin)
    visitor.open_socket(f"{base}api/events/subscribe").close()


def test_who_logs_out_in_jupyterlab_is_out_with_every_copy_of_the_cookie(visitor):
    base = visitor.enter(PASSWORD)
    copy = dict(visitor.jar)
    visitor.ask(f"{base}logout")
    visitor.jar = copy
    assert visitor.ask(f"{base}lab").status == 303


def test_another_name_is_refused_by_both_ports(shared, visitor):
    base = visitor.enter(PASSWORD)
    assert visitor.ask(f"{base}lab", Host="evil.example").status == 403
    assert visitor.ask("/login", Host=f"127.0.0.1:{visitor.port}").status == 403
    for path in ("/lab", f"/lab?token={shared.token}"):
        assert status_of(f"{shared.jupyter}{path}", Host=visitor.host) == 403
    assert status_of(f"{shared.jupyter}{base}lab", Host="evil.example") == 403


def test_the_token_is_for_loopback_alone(shared, visitor):
    assert status_of(f"{shared.jupyter}/api/status?token={shared.token}") == 200
    assert visitor.ask(f"/api/status?token={shared.token}").status == 403
    assert visitor.ask("/api/status", Authorization=f"token {shared.token}").status == 403
    assert visitor.log_in(shared.token).status == 401


def test_a_kernel_that_computes_or_trains_is_kept_and_one_that_idles_is_not(visitor):
    base = visitor.enter(PASSWORD)
    visitor.execute(base, "print(1)")
    visitor.execute(base, f"import time\nprint(1, flush=True)\ntime.sleep({4 * IDLE})")
    trains = TRAINS.format(seconds=4 * IDLE)
    visitor.execute(base, trains)
    kernels = lambda: re.findall('"execution_state": "(\\w+)"', visitor.ask(f"{base}api/kernels").text)  # noqa: E731
    assert "busy" in until(lambda: len(left := kernels()) == 2 and left, "two are left", 3 * IDLE)
    until(lambda: kernels() == [], "both are idle, and gone", 10 * IDLE)


def test_a_running_stack_is_shared_under_another_name_only_after_a_stop(shared):
    done = shared.make("up", "SHARE=other.example.org", check=False)
    assert done.returncode == 2 and f", shared as {NAME}, and" in done.stdout
    assert shared.settings["SHARE"] == NAME


def test_a_given_certificate_is_used_and_down_ends_the_entrance(shared, visitor):
    shared.make("down")
    with pytest.raises(OSError, match="refused"):
        visitor.connect()
    own = shared.folder / "own"
    shutil.copytree(shared.folder / ".stack/share", own)
    shutil.rmtree(shared.folder / ".stack/share")
    shared.make("up", SHARE_TLS="own")
    visitor.certificate = own / "server.crt"
    assert visitor.log_in(PASSWORD).status == 303
    assert not (shared.folder / ".stack/share").exists()
    assert "that of SHARE_TLS" in shared.make("status").stdout


def test_without_share_there_is_no_entrance_and_the_token_is_in_the_address_again(shared, visitor):
    shared.make("down")
    said = shared.make("up", "SHARE=", "SHARE_TLS=").stdout
    assert f"{shared.jupyter}/lab?token={shared.token}" in said
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", visitor.port), timeout=5)
