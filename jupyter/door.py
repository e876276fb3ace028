"""The door of JupyterLab's server: who has neither the token nor its secret path never reaches Jupyter.

Cookies ignore ports: a browser sends those of 127.0.0.1:8888 to whatever listens on another port of
127.0.0.1, be it another user's, and a redirect leads there from any other name. Only the cookies' path holds
such a listener off. So Jupyter lives below a path that nobody knows who hasn't shown the token, and its
cookies are bound to that path. Whoever shows the token is served at the usual addresses as well.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

from jupyter_server import __version__
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine

if TYPE_CHECKING:
    from tornado.httputil import HTTPConnection, RequestStartLine
    from tornado.iostream import IOStream

MIB = 1 << 20
STRANGER_BODY = 1 << 16  # bytes that are read, and thrown away, before a stranger's answer
GUEST_BODY = 512 * MIB  # JupyterLab saves a notebook as one body
MESSAGE = 16 * MIB  # more than a message on a WebSocket may have: 10 MiB
STRANGERS = 256  # connections that have not shown the token; one more closes the oldest
HEADERS = 1 << 15  # bytes
IDLE = 60  # seconds for a request's headers, and between two requests
LOGIN = b"""<!doctype html><meta charset="utf-8"><title>JupyterLab</title>
<style>body { font: 16px sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em }</style>
<h1>JupyterLab</h1>
<p>Token authentication is enabled. <code>make status</code> prints the address with the token; with plain
<code>docker compose up</code> it stands in <code>docker compose logs jupyter</code>.</p>
<form><input type="password" name="token" aria-label="token" autofocus> <button>Log in</button></form>
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"


def secret_path(token: str) -> str:
    """Return the path below which Jupyter lives: for a given token always the same, for none a new one."""
    word = hmac.digest(token.encode(), b"path", hashlib.sha256).hex()[:32] if token else secrets.token_hex(16)
    return f"/{word}/"


def is_local(host: str) -> bool:
    """Say whether a request's Host is this machine: no page of another name has led the browser here."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


class Door(HTTPServer):
    """Jupyter's HTTP server: `HTTPServer.configure(Door)` puts it in the place of tornado's own."""

    headers: ClassVar[dict[str, str]] = {}  # besides, of what the door itself answers

    def initialize(self, app: Any, **options: Any) -> None:
        """Set limits that hold for a stranger; tornado calls this in the place of `__init__`."""
        options |= {
            "max_body_size": STRANGER_BODY,
            "max_buffer_size": MESSAGE,
            "max_header_size": HEADERS,
            "idle_connection_timeout": IDLE,
        }
        super().initialize(app, **options)
        self.base: str = app.settings["base_url"]
        self.token: str = app.settings["identity_provider"].token
        self._strangers: dict[IOStream, None] = {}

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a connection; where too many have shown nothing, close the one that waits longest."""
        if len(self._strangers) >= STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        self._strangers[stream] = None
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection that is closed."""
        self._strangers.pop(server_conn.stream, None)
        super().on_close(server_conn)

    def start_request(self, server_conn: Any, request_conn: Any) -> HTTPMessageDelegate:
        """Return what looks at a request's headers before any of its body is read."""
        return Visitor(self, server_conn, request_conn)

    def guest(self, server_conn: Any, request_conn: Any) -> HTTPMessageDelegate:
        """Return what passes a request on to Jupyter, with a guest's limits."""
        self._strangers.pop(server_conn.stream, None)
        request_conn.set_max_body_size(GUEST_BODY)
        return super().start_request(server_conn, request_conn)

    def knows_path(self, path: str) -> bool:
        """Say whether a path lies below the secret one."""
        return hmac.compare_digest(path[: len(self.base)].encode(), self.base.encode())

    def knows_token(self, token: str) -> bool:
        """Say whether this is the token."""
        return bool(self.token) and hmac.compare_digest(token.encode(), self.token.encode())


class Visitor(HTTPMessageDelegate):
    """One request at the door: passed on to Jupyter, sent to the secret path, or refused."""

    def __init__(self, door: Door, server_conn: Any, request_conn: HTTPConnection) -> None:
        self.door, self.server_conn, self.connection = door, server_conn, request_conn
        self.inside: HTTPMessageDelegate | None = None

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        """Decide, by the path, the token and the host alone."""
        path, _, query = start_line.path.partition("?")
        if self.door.knows_path(path):
            return self._pass_on(start_line, headers)
        in_address = parse_qs(query).get("token", [""])[-1]
        in_header = re.match(r"(?:token|bearer)\s+(.+)", headers.get("Authorization", ""), re.IGNORECASE)
        token = in_address or (in_header[1] if in_header else "")
        if not is_local(headers.get("Host", "")):
            return self._answer(
                start_line, 403, "Forbidden", b"This name is not this machine's: 127.0.0.1 is.\n"
            )
        if self.door.knows_token(token):
            below = self.door.base + start_line.path.lstrip("/")
            if in_address and start_line.method in ("GET", "HEAD") and not path.startswith("/api/"):
                return self._answer(
                    start_line, 302, "Found", location=below
                )  # a page: its cookies need the path
            return self._pass_on(start_line._replace(path=below), headers)
        if path == "/api" and start_line.method in ("GET", "HEAD"):  # the health check's question
            return self._answer(start_line, 200, "OK", json.dumps({"version": __version__}).encode())
        return self._answer(start_line, 403, "Forbidden", LOGIN)

    def _pass_on(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        self.inside = self.door.guest(self.server_conn, self.connection)
        return self.inside.headers_received(start_line, headers)

    def _answer(
        self, start_line: RequestStartLine, code: int, reason: str, body: bytes = b"", location: str = ""
    ) -> None:
        headers = HTTPHeaders(
            {
                "Content-Type": "application/json" if body.startswith(b"{") else "text/html; charset=utf-8",
                "Content-Length": str(len(body)),
                "Content-Security-Policy": POLICY,
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
            }
            | self.door.headers
        )
        if location:
            headers["Location"] = location
        body = b"" if start_line.method == "HEAD" else body
        self.connection.write_headers(ResponseStartLine("HTTP/1.1", code, reason), headers, body)
        self.connection.finish()

    def data_received(self, chunk: bytes) -> Any:
        """Hand a piece of the body on; a stranger's is thrown away."""
        return self.inside.data_received(chunk) if self.inside else None

    def finish(self) -> None:
        """Tell Jupyter that the request is whole."""
        if self.inside:
            self.inside.finish()

    def on_connection_close(self) -> None:
        """Tell Jupyter that the visitor is gone."""
        if self.inside:
            self.inside.on_connection_close()
