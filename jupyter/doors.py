"""The doors from JupyterLab to what is beside it: the board, TensorBoard and the service of exported runs.

jupyter-server-proxy hands requests on, and puts what is here into the launcher. Its own extension stays off:
it would open /proxy/PORT too, every port of this machine, to whatever script runs in a page of JupyterLab's.

All of these pages have JupyterLab's origin, and a script there may do what the user may. The board is ours,
but TensorBoard shows what event files from elsewhere hold. So requests are handed on without JupyterLab's
cookies and token, answers come back with known headers alone, a page's policy lets it load and ask nothing
but its own folder, and no window of JupyterLab's is in its reach.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server_proxy.api import IconHandler, ServersInfoHandler
from jupyter_server_proxy.config import ServerProcess
from jupyter_server_proxy.handlers import AddSlashHandler, NamedLocalProxyHandler
from tornado import httpclient, web
from tornado.httputil import HTTPHeaders, responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_server_proxy.handlers import RewritableResponse

CONNECT = 5.0  # seconds
ANSWER = 120.0  # seconds; TensorBoard takes some for ten thousand runs
START = 60.0  # seconds for the board to listen
PAUSE = 10.0  # seconds between two starts that fail: its page asks every two seconds
ASKED = {  # headers of a request that are handed on
    "accept",
    "accept-encoding",
    "accept-language",
    "content-type",
    "if-modified-since",
    "if-none-match",
    "range",
    "x-tensorboard-feature-flags",
}
ASKED_OF_US = ASKED | {"host", "origin", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site"}
# htmx's headers, and those of the board's own pages; none that tells of the way here
BETWEEN_US = re.compile(r"hx-|x-(?!forwarded-|proxycontextpath)")
ANSWERED = {  # headers of an answer that are handed back: none that sets a cookie or lets another site read
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-range",
    "content-security-policy",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "location",
    "retry-after",
    "vary",
}
COLUMNS = "columns"  # the cookie of the board's table
OWN = {  # and ours: neither framed nor read elsewhere, and with no handle on the window that opened it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
INERT = "default-src 'none'; sandbox; frame-ancestors 'self'"  # a picture that is a page of its own, SVG say
PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>:root {{ color-scheme: light dark }}
body {{ font: 16px sans-serif; max-width: 40em; margin: 15vh auto; padding: 0 1em }}</style>
<h1>{title}</h1><p>{sentence}</p>
"""
ABSENT = {
    "board": "The board does not start. `make logs ARGS=jupyter` says why.",
    "tensorboard": "TensorBoard does not answer. `make status` says whether it runs, `make up` starts it.",
    "serve": "No exported run is served. `make serve RUN=last` starts that.",
}
SLOW = f"It runs, and its answer took longer than {ANSWER:.0f} s, after which nothing is waited for here."
CUT = "Its answer broke off, or has more than the 100 MB that are handed on here: ask for less at once."
CHANGED = "The service asks for another token than the SERVE_TOKEN with which JupyterLab was started."


class RefusedError(web.HTTPError):
    """A request that is not handed on, or an answer not handed back; with a sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status)
        self.sentence = sentence


def is_elsewhere(headers: Mapping[str, str], host: str) -> bool:
    """Say whether a page of another origin asks; a link that somebody follows is none that asks."""
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    elsewhere = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
    return elsewhere and headers.get("Sec-Fetch-Dest") != "document"


def climbs(path: str) -> bool:
    """Say whether a path leads out of its folder, however it is written."""
    return ".." in re.split(r"[/\\]", unquote(unquote(path)))


def leads_away(location: str) -> bool:
    """Say whether a redirect leads out of the folder that it comes from; browsers read `\\` as `/`."""
    if re.search(r"[\\\x00-\x20]", location):
        return True
    parts = urlsplit(location)
    return bool(parts.scheme or parts.netloc) or location.startswith("//") or climbs(parts.path)


def scoped(policy: str, folder: str) -> str:
    """Return a page's policy with its own folder in the place of the whole origin."""
    if not re.fullmatch(r"[\w.-]+(:\d+)?/[\w./-]*", folder):  # the form that a policy can name
        return policy
    parts = [each.strip() for each in policy.split(";")]
    narrow = [
        each if each.startswith("frame-ancestors") else each.replace("'self'", folder)
        for each in parts
        if each
    ]
    if not any(each.startswith("frame-ancestors") for each in narrow):
        narrow.append("frame-ancestors 'self'")
    return "; ".join(narrow)


class Beside(NamedLocalProxyHandler):
    """Hands requests on to a server at `host:port` or at a Unix socket, whose path has a slash."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST")
    asked: ClassVar[set[str]] = ASKED
    between = re.compile(r"(?!)")  # names of headers that are handed on and back as well: none

    def __init__(self, *args: Any, name: str, at: str, token: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = self.proxy_base = name
        self.at, self.secret = at, token
        self.unix_socket = at if "/" in at else None
        # a function with this one argument: a method's `self` the library would want to fill in, too
        self.rewrite_response = [lambda response: self.narrow(response)]  # noqa: PLW0108
        self.begun = False
        self.update_last_activity = False  # a page that is left open is nobody at work

    async def prepare(self) -> None:
        """Let nobody in without JupyterLab's login, and no page of another origin."""
        await super().prepare()
        if self._finished:  # sent to the login
            return
        if "Upgrade" in self.request.headers:
            raise RefusedError(400, "No WebSocket is to be had here.")
        if is_elsewhere(self.request.headers, self.request.host):
            raise RefusedError(403, "A page of another site asked for this.")
        if climbs(self.request.path):
            raise RefusedError(404, "This path leads out of its folder.")
        if self.request.headers.get("Accept") == "text/event-stream":
            del self.request.headers["Accept"]  # the library would hand the answer back past `narrow`
        if "text/html" in self.request.headers.get("Accept", "") and self.get_query_argument("token", None):
            self.redirect("?".join(filter(None, [self.request.path, self.query])))  # it does its work once

    async def proxy(self, port: int, path: str) -> None:
        """Hand a request on, or say in a sentence why it has no answer."""
        since = time.monotonic()
        try:
            await super().proxy(port, path)
        except RefusedError:
            raise
        except (OSError, TimeoutError, httpclient.HTTPClientError, web.HTTPError):
            if time.monotonic() - since >= ANSWER:
                raise RefusedError(504, SLOW) from None
            if self.begun:
                raise RefusedError(502, CUT) from None
            raise RefusedError(503, ABSENT[self.name]) from None

    def begin(self, _: str) -> None:
        """Note that an answer has begun; called with each line of its headers."""
        self.begun = True

    @property
    def query(self) -> str:
        """The request's query without JupyterLab's token."""
        if "token" not in self.request.query_arguments:
            return self.request.query
        return urlencode([each for each in parse_qsl(self.request.query, True) if each[0] != "token"])

    def get_client_uri(self, protocol: str, host: str, port: int, proxied_path: str) -> str:  # noqa: ARG002
        """Return the address to ask: the path as it was sent, which a second reader would read otherwise."""
        below = self.request.path[len(self.base_url) + len(self.name) :]
        origin = "localhost" if self.unix_socket else self.at
        return f"http://{origin}{below}" + (f"?{self.query}" if self.query else "")

    def proxy_request_headers(self) -> HTTPHeaders:
        """Return the headers to ask with: none of JupyterLab's secrets, and no name but this machine's.

        Who asks has been looked at above, by the Host and the Origin that the browser sent; those behind this
        door compare them with their own.
        """
        headers = HTTPHeaders({"Host": "localhost"})
        for name, value in self.request.headers.get_all():
            if name.lower() in self.asked or self.between.match(name.lower()):
                headers[name] = value
        if self.secret:
            headers["Authorization"] = f"Bearer {self.secret}"
        return headers

    def proxy_request_options(self) -> dict[str, Any]:
        """Return the limits to ask with."""
        times = {"connect_timeout": CONNECT, "request_timeout": ANSWER}
        return {"follow_redirects": False, "header_callback": self.begin, **times}

    def narrow(self, response: RewritableResponse) -> None:
        """Let through of an answer what can do no harm in JupyterLab's origin."""
        if response.code == 401:
            raise RefusedError(502, CHANGED)
        headers = HTTPHeaders()
        for name, value in response.headers.get_all():
            if name.lower() in ANSWERED or self.between.match(name.lower()):
                headers.add(name, value)
        place = f"{self.base_url}{self.name}/"
        if location := headers.get("Location"):
            if leads_away(location):
                raise RefusedError(502, "What answers here wanted to send you elsewhere.")
            headers["Location"] = re.sub(
                f"^{re.escape(place)}", "/", location
            )  # the library puts it in front
        folder = f"{self.request.host}{place}"
        policy, kind = headers.get("Content-Security-Policy"), headers.get("Content-Type", "")
        if policy:
            headers["Content-Security-Policy"] = scoped(policy, folder)
        elif "javascript" not in kind and response.code != 304:  # a worker's script would be bound by it
            headers["Content-Security-Policy"] = INERT
        headers.update(OWN)
        response.headers = headers

    def write_error(self, status_code: int, **options: Any) -> None:
        """Answer with one sentence."""
        error = (options.get("exc_info") or [None, None])[1]
        sentence = getattr(error, "sentence", responses.get(status_code, "This did not work") + ".")
        for name, value in OWN.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.set_header("Cache-Control", "no-store")
        if "HX-Request" in self.request.headers:  # the board's script, which shows it as it is
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(sentence)
            return
        title = "Not running" if status_code == 503 else "Not answered"
        self.finish(PAGE.format(title=title, sentence=html.escape(sentence)))


class Board(Beside):
    """The board: our own, which checks XSRF as JupyterLab does, and is started with the first request.

    Two cookies pass: the one that guards its forms, and the one in which it keeps the columns of its table.
    """

    asked = ASKED_OF_US
    between = BETWEEN_US

    def __init__(self, *args: Any, program: Program, **options: Any) -> None:
        super().__init__(*args, name="board", at=program.socket, **options)
        self.program = program

    def check_xsrf_cookie(self) -> None:
        """Refuse what no page of ours has sent; the library leaves that to those whom it asks."""
        try:
            JupyterHandler.check_xsrf_cookie(self)
        except web.HTTPError:
            raise RefusedError(
                403, "No page of the board has sent this, or an old one: load it again."
            ) from None

    def proxy_request_headers(self) -> HTTPHeaders:
        """Return the headers to ask with, and of the cookies the board's two."""
        headers = super().proxy_request_headers()
        drawn = self.xsrf_token.decode()  # sets the cookie where there is none yet
        is_new = "_xsrf" in getattr(self, "_new_cookie", {})
        headers["Cookie"] = f"_xsrf={drawn if is_new else self.get_cookie('_xsrf')}"
        kept = self.get_cookie(COLUMNS, "")
        if kept and re.fullmatch(r"[\w%.~/-]*", kept):
            headers["Cookie"] += f"; {COLUMNS}={kept}"
        return headers

    def narrow(self, response: RewritableResponse) -> None:
        """Let through what all may, and the columns."""
        kept = [each for each in response.headers.get_list("Set-Cookie") if each.startswith(f"{COLUMNS}=")]
        super().narrow(response)
        for each in kept:
            secure = "; Secure" if self.request.protocol == "https" else ""
            response.headers.add("Set-Cookie", each + secure)

    async def proxy(self, port: int, path: str) -> None:
        """Hand a request on, to a board that runs."""
        if not await self.program.listens():
            raise RefusedError(503, ABSENT["board"])
        await super().proxy(port, path)


class Program:
    """A server at a Unix socket of its own; it ends with JupyterLab, however that ends.

    The library has a supervisor of its own, which takes over JupyterLab's SIGTERM, and with it the time in
    which a training saves a checkpoint; and it starts what ends at once again and again, without a pause.

    Args:
        command: What starts it, with the socket's path behind it.
    """

    def __init__(self, *command: str) -> None:
        self.socket = str(Path(tempfile.mkdtemp(prefix="trainlab-board-")) / "socket")  # nobody else's folder
        self.command = ("setpriv", "--pdeathsig", "TERM", "--", *command, self.socket)
        self.process: asyncio.subprocess.Process | None = None
        self.turn = asyncio.Lock()
        self.not_before = 0.0  # of the clock: the next start

    async def listens(self) -> bool:
        """Say whether it listens; start it where it does not run."""
        async with self.turn:
            if self.process is not None and await self._is_there():
                return True
            if time.monotonic() < self.not_before:
                return False
            self.not_before = time.monotonic() + PAUSE
            self._end()
            Path(self.socket).unlink(missing_ok=True)
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.DEVNULL
            )
            deadline = time.monotonic() + START
            while self.process.returncode is None and time.monotonic() < deadline:
                if await self._is_there():
                    self.not_before = 0.0
                    return True
                await asyncio.sleep(0.05)
            self._end()
            return False

    async def _is_there(self) -> bool:
        """Say whether somebody listens: of a process that has died it is learnt only later."""
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except BlockingIOError:  # so many ask at once that one more has to come again
            return True
        except OSError:
            return False
        writer.close()
        return True

    def _end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


def entry(name: str, title: str) -> ServerProcess:
    """Return how the launcher shows one of them: beside notebooks, the one place where it draws pictures."""
    icon = Path(__file__).parent / "icons" / f"{name}.svg"
    return ServerProcess(name=name, launcher_entry={"title": title, "icon_path": icon})


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "doors"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Put the doors into JupyterLab's server: TENSORBOARD_AT and SERVE_AT say where the two others are."""
    base, token = app.web_app.settings["base_url"], os.environ.pop("SERVE_TOKEN", "")
    beside: list[tuple[str, type[Beside], dict[str, Any]]] = [
        ("board", Board, {"program": Program("trainlab", "board", "--socket")})
    ]
    shown = [entry("board", "Board")]
    if at := os.environ.get("TENSORBOARD_AT"):
        beside.append(("tensorboard", Beside, {"name": "tensorboard", "at": at}))
        shown.append(entry("tensorboard", "TensorBoard"))
    if at := os.environ.get("SERVE_AT"):
        beside.append(("serve", Beside, {"name": "serve", "at": at, "token": token}))
    for name, handler, options in beside:
        place = re.escape(f"{base}{name}")
        app.web_app.add_handlers(".*", [(place, AddSlashHandler), (f"{place}(/.*)", handler, options)])
    icons = {each.name: each.launcher_entry.icon_path for each in shown}
    app.web_app.add_handlers(
        ".*",
        [
            (re.escape(f"{base}server-proxy/servers-info"), ServersInfoHandler, {"server_processes": shown}),
            (re.escape(f"{base}server-proxy/icon/") + "(.*)", IconHandler, {"icons": icons}),
        ],
    )
