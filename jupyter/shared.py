"""The entrance of a shared JupyterLab (`make up SHARE=lab.example.org`): HTTPS, one name, one password.

It stands beside the door on loopback (door.py), and differs from it in how somebody gets in: by a cookie
that the password buys. It listens on a socket in a folder that Caddy's container has, too; without Docker, on
a port with TLS of its own. Who has no cookie reaches the page that asks for the password, and nothing else;
the token opens nothing here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import ssl
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from door import POLICY, Door, Visitor
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.auth.identity import PasswordIdentityProvider
from jupyter_server.auth.security import passwd_check
from throttle import Throttle, caller
from tornado import web
from tornado.httputil import parse_cookie
from tornado.log import app_log
from tornado.netutil import bind_sockets, bind_unix_socket

if TYPE_CHECKING:
    from tornado.httputil import HTTPHeaders, RequestStartLine

HSTS = {"Strict-Transport-Security": "max-age=2592000"}  # 30 days: longer than between two visits of most
# __Host-: set by HTTPS and by this very name, or the browser drops it
SESSION, KNOWN = "__Host-trainlab", "__Host-trainlab-known"
SESSION_DAYS, KNOWN_DAYS = 7, 365
LOGIN_BODY = 4096  # bytes: a password, and where to go then
LOGIN_SECONDS = 10  # for that body to come
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>JupyterLab</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body {{ font: 16px sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em }}
input, button {{ font: inherit }}</style>
<h1>JupyterLab</h1>
<form method="post" action="/login"><input type="hidden" name="next" value="{next}">
<label>Password
<input type="password" name="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button></form>
<p role="status">{words}</p></html>
"""


class Lab:
    """What the entrance knows: its name, the password's hash, who is in.

    Args:
        name: As in the address, such as lab.example.org.
        port: Of HTTPS, as seen by visitors.
        hashed: The password, hashed by argon2 (`make password`).
        secret: What cookies are signed with, besides the hash: another password makes every one of them void.
        ended: The file that keeps which sessions were logged out: it outlives a restart as their cookies do.
            Where it is missing or damaged, cookies of before it are void.
    """

    def __init__(self, name: str, port: int, hashed: str, secret: str, ended: Path) -> None:
        self.host = name if port == 443 else f"{name}:{port}"
        self.origin = f"https://{self.host}"
        self.throttle = Throttle()
        self.base = "/"
        self.login = web.Application([("/login", Login, {"lab": self})])
        self._hash = hashed
        self._file = ended
        self._drawn, self._ended = read_ended(ended)
        self._keep()
        key = (secret or secrets.token_hex()).encode()
        self._secret = hmac.digest(key, f"{self._drawn}{hashed}".encode(), hashlib.sha256).hex()
        self._checks = ThreadPoolExecutor(1)  # one at a time: argon2 takes all processors for a moment

    def __deepcopy__(self, memo: Any) -> Lab:
        """Return the same one: traitlets copies what a configuration holds."""
        return self

    async def is_password(self, word: str) -> bool:
        """Say whether this is the password."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, passwd_check, self._hash, word)

    def signed(self, name: str) -> str:
        """Return a new value for a cookie."""
        return web.create_signed_value(self._secret, name, secrets.token_hex(16)).decode()

    def value(self, headers: HTTPHeaders, name: str, days: int) -> str:
        """Return what a cookie that we have signed holds, or ''."""
        cookie = parse_cookie(headers.get("Cookie", "")).get(name)
        return (web.decode_signed_value(self._secret, name, cookie, max_age_days=days) or b"").decode()

    def session(self, headers: HTTPHeaders) -> str:
        """Return the session whose cookie a request has, or ''."""
        found = self.value(headers, SESSION, SESSION_DAYS)
        return "" if found in self._ended else found

    def end(self, session: str) -> None:
        """Let nobody in by this session any more."""
        now = time.time()
        self._ended = {each: end for each, end in self._ended.items() if end > now}
        self._ended[session] = now + SESSION_DAYS * 86400
        self._keep()

    def _keep(self) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False) as file:  # mode 600
                json.dump({"drawn": self._drawn, "ended": self._ended}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._file)
        except OSError as error:
            app_log.error("who logs out is out until the next restart alone, for it can't be kept: %s", error)

    def inside(self, path: str) -> str:
        """Return where a path leads behind the entrance: never to another name."""
        return self.base + path.removeprefix(self.base).lstrip("/\\")


def read_ended(path: Path) -> tuple[str, dict[str, float]]:
    """Return what was drawn when a file was made, which cookies are signed with, and the sessions in it.

    With each session stands when it would have ended, in seconds since the epoch. Where the file does not
    tell, something new is drawn: nobody who has logged out is let in because of that.
    """
    try:
        known = json.loads(path.read_text())
        return str(known["drawn"]), {str(each): float(end) for each, end in known["ended"].items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        app_log.warning("%s does not tell who has logged out: everybody has to log in again", path)
    return secrets.token_hex(16), {}


class Login(web.RequestHandler):
    """The page that asks for the password."""

    def initialize(self, lab: Lab) -> None:
        """Take what the entrance knows."""
        self.lab = lab

    def set_default_headers(self) -> None:
        """Load nothing, be in no frame, be kept nowhere."""
        for name, value in {
            **HSTS,
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            # none at all would make a browser hide from us that its POST comes from our own page
            "Referrer-Policy": "same-origin",
        }.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def get(self) -> None:
        """Show it, to whom it can be of use."""
        if self.lab.session(self.request.headers):
            self.redirect(self.lab.inside(self.get_argument("next", "")), status=303)
        else:
            self.show("")

    async def post(self) -> None:
        """Let in who knows the password."""
        known = self.lab.value(self.request.headers, KNOWN, KNOWN_DAYS)
        who = known or caller(self.request.remote_ip or "")
        if seconds := self.lab.throttle.ask(who, bool(known)):
            self.set_status(429)
            self.set_header("Retry-After", str(int(seconds) + 1))
            self.show(f"Too many wrong passwords. Wait {int(seconds) + 1} s, then try again.")
        elif await self.lab.is_password(self.get_body_argument("password", "", strip=False)):
            self.lab.throttle.right(who, bool(known))
            self.give(SESSION, SESSION_DAYS)
            if not known:
                self.give(KNOWN, KNOWN_DAYS)
            self.redirect(self.lab.inside(self.get_body_argument("next", "")), status=303)
        else:
            app_log.warning("a wrong password from %s", caller(self.request.remote_ip or ""))
            self.set_status(401)
            self.show("This is not the password.")

    def give(self, name: str, days: int) -> None:
        """Set a cookie that no script reads and no other site sends."""
        value = self.lab.signed(name)
        self.set_cookie(name, value, expires_days=days, path="/", secure=True, httponly=True, samesite="Lax")

    def show(self, words: str) -> None:
        """Write the page, with a sentence below."""
        self.finish(PAGE.format(next=escape(self.get_argument("next", "")), words=escape(words)))

    def write_error(self, status_code: int, **_: Any) -> None:
        """Say no more than the status."""
        self.finish(f"{status_code}\n")


class Entrance(Door):
    """The server at the socket or port of the entrance."""

    headers = HSTS

    def initialize(self, app: Any, *, lab: Lab, **options: Any) -> None:
        """Set the door's limits; tornado calls this in the place of `__init__`."""
        super().initialize(app, **options)
        self.lab = lab
        lab.base = self.base

    def start_request(self, server_conn: Any, request_conn: Any) -> Visitor:
        """Return what looks at a request's headers before any of its body is read."""
        return Caller(self, server_conn, request_conn)


class Caller(Visitor):
    """One request at the entrance: passed on to Jupyter, shown the page, or refused."""

    door: Entrance

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        """Decide, by the name, the origin and the cookie."""
        lab, context = self.door.lab, self.connection.context
        if context.address_family == socket.AF_UNIX:  # Caddy: nobody else has the socket
            context.protocol = "https"
            context.remote_ip = headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        reads = start_line.method in ("GET", "HEAD") and "Upgrade" not in headers
        context.session = ""
        if headers.get("Host", "").lower() != lab.host:
            return self._answer(start_line, 403, "Forbidden", b"This server goes by another name.\n")
        if not reads and is_foreign(headers, lab.origin):
            return self._answer(start_line, 403, "Forbidden", b"Another site has asked for this.\n")
        if start_line.path.partition("?")[0] == "/login":
            return self._to_login(start_line, headers)
        context.session = lab.session(headers)
        if context.session:
            return self._let_in(start_line, headers, reads)
        return self._keep_out(start_line, reads)

    def _let_in(self, start_line: RequestStartLine, headers: HTTPHeaders, reads: bool) -> Any:
        below = self.door.lab.inside(start_line.path)
        elsewhere = not self.door.knows_path(start_line.path) and not start_line.path.startswith("/api/")
        if reads and elsewhere:  # a page: Jupyter's cookies need the path
            return self._answer(start_line, 302, "Found", location=below)
        return self._pass_on(start_line._replace(path=below), headers)

    def _keep_out(self, start_line: RequestStartLine, reads: bool) -> Any:
        path = start_line.path.partition("?")[0]
        if reads and not path.startswith("/api/"):
            query = urlencode({"next": start_line.path}, quote_via=quote)
            return self._answer(start_line, 303, "See Other", location=f"/login?{query}")
        return self._answer(start_line, 403, "Forbidden", b"The page /login asks for the password.\n")

    def _to_login(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        self.connection.set_max_body_size(LOGIN_BODY)
        self.connection.set_body_timeout(LOGIN_SECONDS)
        self.inside = self.door.lab.login.start_request(self.server_conn, self.connection)
        return self.inside.headers_received(start_line, headers)


def is_foreign(headers: HTTPHeaders, origin: str) -> bool:
    """Say whether a page of another origin has sent a request; programs, which name none, have not."""
    if headers.get("Origin", origin).lower() != origin:
        return True
    return headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


class SharedIdentity(PasswordIdentityProvider):
    """Tells Jupyter that who came through the entrance is in; on loopback the token counts, as ever."""

    def get_user(self, handler: Any) -> Any:
        """Return the user of a request."""
        if not session_of(handler):
            return super().get_user(handler)
        user = self.get_user_cookie(handler)
        if user is None:
            user = self.generate_anonymous_user(handler)
            self.set_login_cookie(handler, user)
        return user

    def clear_login_cookie(self, handler: Any) -> None:
        """Log out."""
        super().clear_login_cookie(handler)
        if session := session_of(handler):
            handler.settings["trainlab_share"].end(session)
            handler.clear_cookie(SESSION, path="/", secure=True)


def session_of(handler: Any) -> str:
    """Return by which session a request came through the entrance; '' for one that came elsewhere."""
    return getattr(getattr(handler.request.connection, "context", None), "session", "")


def seconds(text: str) -> int:
    """Return how long 12h, 30m, 90s or 2d is; 0 is never.

    Raises:
        SystemExit: It is none of these.
    """
    if text == "0":
        return 0
    found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", text)
    if not found:
        sys.exit(f"error: SHARE_CULL={text} is no time such as 12h, 30m or 2d, nor 0 for never; see .env")
    return int(found[1]) * UNITS[found[2]]


def settle(config: Any, token: str) -> None:
    """Set up Jupyter for the entrance, as the variables SHARE and SHARE_* say; without SHARE do nothing.

    Args:
        config: Jupyter's, to which this adds.
        token: Jupyter's, which is secret; '' for one that is drawn.
    """
    name, hashed = os.environ.get("SHARE", ""), os.environ.pop("SHARE_PASSWORD_HASH", "")
    if not name:
        return
    if not hashed.startswith("argon2:"):
        sys.exit("error: SHARE is set and SHARE_PASSWORD_HASH is not: `make password` sets it")
    ended = Path(jupyter_data_dir(), "trainlab-logged-out.json")
    lab = Lab(name, int(os.environ.get("SHARE_PORT") or 443), hashed, token, ended)
    server = config.ServerApp
    server.identity_provider_class = SharedIdentity
    server.local_hostnames = [*server.local_hostnames, name]
    server.custom_display_url = f"{lab.origin}/lab"
    server.tornado_settings = {
        "trainlab_share": lab,
        "headers": HSTS,
        "xsrf_cookie_kwargs": {"path": server.base_url, "secure": True, "samesite": "Lax"},
    }
    server.jpserver_extensions["shared"] = True
    config.IdentityProvider.cookie_options = {"samesite": "Lax"}
    idle = seconds(os.environ.get("SHARE_CULL") or "12h")
    config.MappingKernelManager.cull_idle_timeout = idle
    config.MappingKernelManager.cull_interval = max(1, min(300, idle // 10))
    config.MappingKernelManager.cull_connected = True  # a tab that was left open holds the GPU just the same


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "shared"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Open the entrance; Jupyter calls this when its own application is made."""
    lab, options, folder = app.web_app.settings["trainlab_share"], {}, os.environ.get("SHARE_CERTIFICATE", "")
    try:
        if folder:
            options["ssl_options"] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            options["ssl_options"].load_cert_chain(Path(folder, "server.crt"), Path(folder, "server.key"))
            port = int(os.environ.get("SHARE_PORT") or 443)
            sockets = bind_sockets(port, os.environ.get("SHARE_ADDRESS") or "0.0.0.0")
        else:
            sockets = [bind_unix_socket(os.environ["SHARE_SOCKET"], mode=0o600)]
    except OSError as error:
        sys.exit(f"error: the entrance for SHARE cannot be opened: {error}")
    entrance = Entrance(app.web_app, lab=lab, **options)
    app.io_loop.add_callback(entrance.add_sockets, sockets)
