"""A shared stack in the real containers: `make up SHARE=NAME`, and HTTPS from outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from project import CHECKOUT, Project, clean_environment, copy_checkout, own_image, own_images, status_of
from visitor import Visitor
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

pytestmark = [pytest.mark.docker, pytest.mark.slow]

NAME, PASSWORD = "lab.example.org", "correct horse battery"
USER = 1000 if os.geteuid() == 0 else os.geteuid()
CROWD = 1000  # connections that say nothing


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Project]:
    """A copy of the checkout, shared on loopback by the real engine; nothing of it is left at the end."""
    folder = copy_checkout(tmp_path_factory.mktemp(f"share{os.getpid()}-"))
    own_images()  # whose layers, and whose wheel of torch, are this one's
    for wheel in (CHECKOUT / "jupyter/wheels").glob("*.whl"):
        os.link(wheel, folder / "jupyter/wheels" / wheel.name)
    ports = ("JUPYTER_PORT", "TENSORBOARD_PORT", "SHARE_PORT", "SHARE_HTTP_PORT")
    environment = {name: str(free_port()) for name in ports}
    project = Project(folder, {"ENGINE": "docker", "GPU": "0", "SHARE_ADDRESS": "127.0.0.1", **environment})
    try:
        command = ["make", "password"]
        told = f"{PASSWORD}\n{PASSWORD}\n"
        whole = clean_environment() | project.environment
        subprocess.run(command, cwd=folder, env=whole, input=told, text=True, check=True)
        project.make("up", f"SHARE={NAME}")
        yield project
    finally:
        compose(project, "down", "--volumes", "--rmi=all", "--timeout", "3")


def compose(project: Project, *words: str) -> str:
    """Call Compose as make does: by the project's name and files in .env."""
    command = ["docker", "compose", *words]
    return subprocess.check_output(command, cwd=project.folder, env=clean_environment(), text=True)


@pytest.fixture
def visitor(shared: Project) -> Visitor:
    return Visitor(NAME, int(shared.environment["SHARE_PORT"]), shared.folder / ".stack/share-root.crt")


def state(project: Project, service: str) -> dict[str, Any]:
    container = compose(project, "ps", "--all", "--quiet", service).strip()
    return json.loads(subprocess.check_output(["docker", "inspect", container], text=True))[0]


def test_status_prints_the_address_and_where_the_root_certificate_lies(shared, visitor):
    said = shared.make("status").stdout
    assert f"JupyterLab   https://{visitor.host}/lab" in said
    assert "install .stack/share-root.crt where people browse" in said
    assert said.count("healthy") == 3
    assert shared.token not in said


def test_the_door_alone_is_published(shared):
    published = {}
    for service in ("jupyter", "tensorboard", "share"):
        ports = state(shared, service)["NetworkSettings"]["Ports"]
        published[service] = {inner: outer[0]["HostPort"] for inner, outer in ports.items() if outer}
    assert published == {
        "jupyter": {},
        "tensorboard": {},
        "share": {
            "8443/tcp": shared.environment["SHARE_PORT"],
            "8080/tcp": shared.environment["SHARE_HTTP_PORT"],
        },
    }
    for name in ("JUPYTER_PORT", "TENSORBOARD_PORT"):
        assert status_of(f"http://127.0.0.1:{shared.environment[name]}/") == 0


def test_jupyterlab_listens_on_its_container_s_loopback_alone(shared):
    (network,) = state(shared, "jupyter")["NetworkSettings"]["Networks"].values()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((network["IPAddress"], int(shared.environment["JUPYTER_PORT"])), timeout=5)


def test_the_password_over_https_opens_jupyterlab_and_a_kernel_computes_over_wss(visitor):
    page = visitor.ask("/lab")
    assert (page.status, page.headers["Location"]) == (303, "/login?next=%2Flab")
    entered = visitor.log_in(PASSWORD)
    assert entered.status == 303
    assert entered.headers["Strict-Transport-Security"] == "max-age=2592000"
    for line in entered.cookies:
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
    assert visitor.execute(visitor.enter(PASSWORD), "print(1 + 1)") == "2\n"


def test_the_certificate_is_of_a_root_of_its_own_that_outlives_down_and_up(shared, visitor):
    root = visitor.certificate.read_text()
    with visitor.connect() as connection:
        assert ("DNS", NAME) in connection.getpeercert()["subjectAltName"]
    shared.make("down")
    assert status_of(f"http://127.0.0.1:{shared.environment['SHARE_HTTP_PORT']}/") == 0, (
        "down ends the door, too"
    )
    visitor.certificate.unlink()
    shared.make("up")
    assert visitor.certificate.read_text() == root
    assert visitor.log_in(PASSWORD).status == 303


def test_plain_http_leads_to_the_name_s_https_whatever_name_was_asked_for(shared, visitor):
    for host in (NAME, "evil.example"):
        answer = plain(shared, f"GET /lab?x=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 308 ")
        assert f"\r\nLocation: https://{visitor.host}/lab?x=1\r\n" in answer


def plain(project: Project, request: str) -> str:
    with socket.create_connection(
        ("127.0.0.1", int(project.environment["SHARE_HTTP_PORT"])), 20
    ) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def test_another_name_is_refused_in_the_handshake_and_in_the_host(visitor):
    visitor.enter(PASSWORD)
    for host in ("evil.example", "127.0.0.1", f"evil.{visitor.host}"):
        answer = visitor.ask("/lab", Host=host)
        assert answer.status == 421 and "Location" not in answer.headers
    for name in ("evil.example", "127.0.0.1"):
        with pytest.raises(ssl.SSLError):
            visitor.connect(name)


def test_a_page_of_another_site_posts_no_password_and_opens_no_kernel(visitor):
    base = visitor.enter(PASSWORD)
    assert visitor.log_in(PASSWORD, Origin="https://evil.example").status == 403
    page = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "https://evil.example"}
    assert visitor.ask(f"{base}api/events/subscribe", **page).status == 403


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_next_leads_nowhere_else(visitor, to):
    body = f"password={PASSWORD.replace(' ', '+')}&next={to}"
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert visitor.ask("/login", "POST", body, **form).headers["Location"].startswith("/")
    assert (
        not visitor.ask(to if to.startswith("/") else "/").headers["Location"].startswith(("//", "/\\", "h"))
    )


def test_what_a_visitor_says_of_addresses_is_not_believed(shared, visitor):
    """Six wrong passwords from one address make wait, whatever address each one claims."""
    claims = [{"X_Forwarded_For": f"10.9.8.{number}", "X_Real_Ip": f"10.9.8.{number}"} for number in range(6)]
    assert [visitor.log_in("wrong password", **claim).status for claim in claims] == [401] * 5 + [429]
    assert "10.9.8." not in compose(shared, "logs", "jupyter")
    waits = visitor.log_in("wrong password").headers["Retry-After"]
    assert 1 <= int(waits) <= 2
    time.sleep(int(waits))  # the wait itself is the subject
    assert visitor.log_in(PASSWORD).status == 303


def test_a_large_body_for_the_page_is_refused_and_one_of_a_visitor_is_read_whole(visitor):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    with suppress(OSError):  # it may hang up
        assert visitor.ask("/login", "POST", b"password=" + b"x" * 10_000_000, **form).status >= 400
    base = visitor.enter(PASSWORD)
    body = json.dumps({"type": "file", "format": "text", "content": "x" * 50_000_000})
    address = f"{base}api/contents/notebooks/large.txt"
    assert visitor.ask(address, "PUT", body, X_XSRFToken=visitor.jar["_xsrf"]).status == 201


def test_large_headers_are_refused(visitor):
    assert visitor.ask("/login", X_Large="x" * 100_000).status == 431


def test_slow_headers_are_not_waited_for(shared, visitor):
    for connection in (visitor.connect(), socket.create_connection(("127.0.0.1", visitor.port), 20)):
        began = time.monotonic()
        connection.settimeout(30)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab")
        while connection.recv(100):
            pass
        assert time.monotonic() - began < 20
        connection.close()


def test_a_crowd_of_connections_keeps_nobody_out(shared, visitor):
    base = visitor.enter(PASSWORD)
    before = state(shared, "share")["State"]["StartedAt"]
    with ExitStack() as crowd:
        for number in range(CROWD):
            if number % 4:
                connection = socket.create_connection(("127.0.0.1", visitor.port), timeout=20)
            else:
                connection = visitor.connect()
                connection.sendall(b"GET / HTTP/1.1\r\nHost: lab")
            crowd.enter_context(connection)
        assert visitor.ask(f"{base}api/contents").status == 200
        assert visitor.log_in(PASSWORD).status == 303
        assert visitor.execute(base, "print(1 + 1)") == "2\n"
    assert state(shared, "share")["State"]["StartedAt"] == before
    assert state(shared, "share")["State"]["OOMKilled"] is False


def test_it_runs_hardened_and_sees_nothing_of_the_project(shared):
    found = state(shared, "share")
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"] and host["Privileged"] is False
    assert host["Memory"] == 512 * 2**20 and host["PidsLimit"] == 512
    status = compose(shared, "exec", "-T", "share", "cat", "/proc/1/status")
    lines = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert int(lines["CapEff"], 16) == int(lines["CapBnd"], 16) == 0
    assert lines["NoNewPrivs"] == "1" and lines["Uid"].split() == [str(USER)] * 4
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    assert mounts == {"/run/door": False, "/var/lib/share": True, "/tls": False}
    assert "SHARE_PASSWORD_HASH" not in json.dumps(found["Config"]["Env"])
    assert set(found["NetworkSettings"]["Networks"]).isdisjoint(
        state(shared, "tensorboard")["NetworkSettings"]["Networks"]
    )


def test_the_socket_is_of_the_user_alone_and_kernels_do_not_have_the_hash(shared, visitor):
    command = ("exec", "-T", "jupyter", "stat", "-c", "%a %u", "/run/door/jupyter.sock")
    assert compose(shared, *command).split() == ["600", str(USER)]
    code = "import os; print(sorted(name for name in os.environ if 'HASH' in name or 'TOKEN' in name))"
    assert visitor.execute(visitor.enter(PASSWORD), code) == "[]\n"
    said = shared.make("shell", "ARGS=-c 'echo hash:$$SHARE_PASSWORD_HASH:'").stdout
    assert "hash::" in said


def test_nothing_in_the_logs_is_a_password_a_token_or_a_cookie(shared, visitor):
    visitor.enter(PASSWORD)
    logs = compose(shared, "logs", "jupyter", "share")
    assert "horse" not in logs and "argon2" not in logs and shared.token not in logs
    assert visitor.jar["__Host-trainlab"].strip('"')[-40:] not in logs


def test_a_jupyterlab_that_ended_is_back_behind_the_same_door(shared, visitor):
    visitor.enter(PASSWORD)
    until(lambda: visitor.ask("/api/status").status == 200, "an answer")
    compose(shared, "restart", "--timeout", "10", "jupyter")
    until(lambda: visitor.ask("/api/status").status == 200, "the same session, again", 60)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SHARE": "lab", "SHARE_ACME": "you@example.org"}, ["acme", "you@example.org"]),
        ({"SHARE": "lab"}, ["internal"]),
    ],
)
def test_caddy_takes_what_the_entry_makes_of_the_settings(settings, words):
    """ACME itself needs the internet, and an authority that can reach this machine."""
    script = 'exec() { "$1" adapt "${@:3}"; }; . /usr/local/bin/entry'
    given = [f"--env={name}={value}" for name, value in settings.items()]
    command = ["docker", "run", "--rm", "--entrypoint=bash", *given, own_image("share"), "-c", script]
    text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    policies = json.dumps(json.loads(text)["apps"]["tls"]["automation"]["policies"])
    assert all(word in policies for word in words)


def test_a_given_certificate_is_shown_and_one_that_cannot_be_read_is_reported(tmp_path, free_port):
    pair = ["-keyout", tmp_path / "server.key", "-out", tmp_path / "server.crt"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab", *pair]
    subprocess.run([*made, "-addext", f"subjectAltName=DNS:{NAME}"], check=True, capture_output=True)
    start = ["docker", "run", "--rm", "--user=12345", f"--env=SHARE={NAME}", f"--volume={tmp_path}:/tls:ro"]
    start.append("--tmpfs=/var/lib/share:mode=1777")
    for path, mode, words in (
        (tmp_path, 0o700, "cannot be looked into by user 12345"),
        (tmp_path / "server.key", 0o600, "be readable by user 12345"),
    ):
        path.chmod(mode)
        done = subprocess.run([*start, own_image("share")], capture_output=True, text=True, check=False)
        path.chmod(0o755)
        assert done.returncode == 2 and words in done.stderr
    port = free_port()
    container = [*start, "--detach", f"--publish=127.0.0.1:{port}:8443", own_image("share")]
    name = subprocess.check_output(container, text=True).strip()
    try:
        visitor = Visitor(NAME, port, tmp_path / "server.crt")
        until(lambda: is_open(visitor), "the given certificate", 30)
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


def is_open(visitor: Visitor) -> bool:
    """Say whether the door answers; with another certificate than the one that is trusted it fails."""
    try:
        visitor.connect().close()
    except ssl.SSLCertVerificationError:
        raise
    except OSError:
        return False
    return True


def test_a_name_that_would_be_more_than_a_name_to_caddy_is_refused():
    for name in ("", "lab {\n}", "*", "a b", "{env.HOME}"):
        command = ["docker", "run", "--detach", f"--env=SHARE={name}", own_image("share")]
        container = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        try:  # a run in the foreground may miss the last words of what ends at once
            ended = subprocess.run(["docker", "wait", container], capture_output=True, text=True, check=True)
            said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        finally:
            subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=True)
        assert ended.stdout.strip() == "2" and "is no name" in said.stderr


@pytest.fixture
def page(visitor: Visitor) -> Iterator[Page]:
    """A browser that finds the name here; that the certificate is right is the business of other tests."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    options = [
        "--no-sandbox",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
        "--disable-background-networking",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        page = browser.new_page(ignore_https_errors=True, viewport={"width": 1200, "height": 800})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def take_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("TRAINLAB_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.mark.browser
def test_a_person_logs_in_where_they_wanted_to_go_runs_a_cell_and_logs_out(shared, visitor, page):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, shared.folder / "notebooks/answer.ipynb")
    page.goto(f"https://{visitor.host}/lab/tree/notebooks/answer.ipynb")
    assert page.url.startswith(f"https://{visitor.host}/login?next=")
    take_picture(page, "share-login")
    page.get_by_label("password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("This is not the password.").wait_for()
    take_picture(page, "share-wrong")
    with page.expect_websocket(lambda opened: "/channels" in opened.url) as kernel:
        page.get_by_label("password").fill(PASSWORD)
        page.keyboard.press("Enter")
    assert kernel.value.url.startswith(f"wss://{visitor.host}/")
    kernel.value.wait_for_event("framereceived", lambda frame: b"kernel_info_reply" in as_bytes(frame))
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    cell.locator(".jp-OutputArea-output").get_by_text("42").wait_for()
    take_picture(page, "share-jupyterlab")
    for cookie in page.context.cookies():
        assert cookie["secure"] and cookie["sameSite"] == "Lax"
        assert cookie["httpOnly"] or cookie["name"] == "_xsrf"
    assert page.evaluate("document.cookie.includes('trainlab')") is False
    page.goto(f"https://{visitor.host}/logout")
    page.goto(f"https://{visitor.host}/lab")
    page.get_by_label("password").wait_for()


def as_bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def test_the_board_and_tensorboard_are_reached_through_the_same_door(visitor):
    base = visitor.enter(PASSWORD)
    for place, words in (("tensorboard/", "TensorBoard"), ("board/", "<html")):
        page = visitor.ask(f"/{place}")
        assert (page.status, page.headers["Location"]) == (302, f"{base}{place}")
        seen = visitor.ask(f"{base}{place}?pinnedCards=")
        assert seen.status == 200 and words in seen.text, seen
    assert visitor.ask(f"{base}tensorboard/data/environment").status == 200
    stranger = Visitor(NAME, visitor.port, visitor.certificate)
    assert stranger.ask(f"{base}tensorboard/data/environment").status == 303
