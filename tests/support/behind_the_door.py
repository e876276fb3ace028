"""A real JupyterLab server with what stands behind its login, and what a person or an enemy asks of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

from tornado import web

from project import CHECKOUT, clean_environment
from tornado_server import ask
from waiting import until

if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-given-token"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
# as TensorBoard's page has it
POLICY = "default-src 'self';script-src 'self' 'unsafe-eval';connect-src 'self'"
# in the place of `trainlab`: answers each request of its socket with what it was asked, as JSON
ECHO = """#!{python}
import json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "die" in self.path:
            os._exit(3)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        known = {{"path": self.requestline.split()[1], "method": self.command, "body": body}}
        known["pid"] = os.getpid()
        known["headers"] = {{name.lower(): value for name, value in self.headers.items()}}
        answer = json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-Seen", "a1")
        self.send_header("Set-Cookie", "username=somebody; Path=/")
        if self.path == "/columns":
            self.send_header("Set-Cookie", "columns=run%2Cmargin; Path=/of-the-board/; HttpOnly")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads, request_queue_size = True, 128

assert sys.argv[1:3] == ["board", "--socket"]
Server(sys.argv[3], Echo).serve_forever()
"""


class Hostile(web.RequestHandler):
    """A service that somebody has taken over: it answers, and tries what it can."""

    def answer(self) -> None:
        if self.get_query_argument("known", None):
            return self.set_status(304)
        if self.get_query_argument("to", None):
            self.set_status(302)
            return self.set_header("Location", self.get_query_argument("to"))
        self.set_header("Set-Cookie", "username=somebody; Path=/")
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Service-Worker-Allowed", "/")
        self.set_header("Refresh", "0; url=http://evil.example/")
        kind = self.get_query_argument("kind", "text/html")
        self.set_header("Content-Type", kind)
        if kind == "text/html":
            self.set_header("Content-Security-Policy", POLICY)
        if kind == "image/svg+xml":
            return self.write(SVG)
        headers = {name.lower(): value for name, value in self.request.headers.get_all()}
        known = {"uri": self.request.uri, "headers": headers, "body": self.request.body.decode()}
        return self.write(json.dumps(known))

    get = post = answer


@dataclass
class Lab:
    """A server that runs, and what a browser keeps of it."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    base: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "jupyter.log").read_text()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        """Ask as anybody may, below the server's address."""
        return ask(self.port, path, method, body, **headers)

    def with_token(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
        """Ask as a script with the token does."""
        return self.ask(path, method, body, Authorization=f"token {TOKEN}", **headers)

    def browse(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
        """Ask as a browser that is logged in does: below the secret path, with the cookies so far."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        told = {"Host": f"127.0.0.1:{self.port}", "Cookie": cookie} | headers
        answer = self.ask(self.base + path, method, body, **told)
        self.keep(answer[2])
        return answer

    def keep(self, headers: http.client.HTTPMessage) -> None:
        """Keep the cookies of an answer."""
        for each in headers.get_all("Set-Cookie") or []:
            for name, morsel in SimpleCookie(each).items():
                self.cookies[name] = morsel.coded_value

    def log_in(self) -> None:
        """Learn the secret path and get the cookies, by the address that `make up` prints."""
        _, _, headers = self.ask(f"/lab?token={TOKEN}")
        self.base = re.match(r"/[0-9a-f]{32}/", headers["Location"])[0]
        self.keep(self.ask(headers["Location"], Accept="text/html")[2])
        assert any(name.startswith("username") for name in self.cookies)


@contextmanager
def jupyter(folder: Path, port: int, *options: str, board: str = ECHO, **environment: str) -> Iterator[Lab]:
    """Start a server in a folder, with our settings; `board` stands in for `trainlab`, if it is anything."""
    for name in ("notebooks", "bin", "home"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if board:
        (folder / "bin/trainlab").write_text(board.format(python=sys.executable))
        (folder / "bin/trainlab").chmod(0o755)
    programs = os.pathsep.join([str(folder / "bin"), sysconfig.get_path("scripts"), os.environ["PATH"]])
    known = {
        "PATH": programs,
        "HOME": str(folder / "home"),
        "JUPYTER_CONFIG_DIR": str(folder / "home/config"),
        "JUPYTER_DATA_DIR": str(folder / "home/data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "home/runtime"),
        "JUPYTER_TOKEN": TOKEN,
        "JUPYTER_PORT": str(port),
        "TRAINLAB_ROOT": str(folder),
    }
    settings = f"--config={CHECKOUT / 'jupyter/jupyter_server_config.py'}"
    command = [sys.executable, "-m", "jupyterlab", settings, "--ip=127.0.0.1", "--no-browser", *options]
    with (folder / "jupyter.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment() | known | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    lab = Lab(process, port, folder)
    try:
        until(lambda: answers(lab), "JupyterLab's health check")
        lab.log_in()
        yield lab
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(lab: Lab) -> bool:
    """Say whether a server answers by now."""
    assert lab.process.poll() is None, lab.log
    try:
        return lab.ask("/api")[0] == 200
    except OSError:
        time.sleep(0.1)
        return False
