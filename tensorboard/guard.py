"""TensorBoard's own application behind a guard: guard.py SOCKET LOGS, started by keeper.py.

TensorBoard asks for no password, so whoever reaches its port reads every run. Pages of other names and sites
are refused here, by Host, Origin and Sec-Fetch-Site. Tornado serves, and not the development server that
TensorBoard brings: it looks at a request's headers before it reads the body, and idle connections cost it no
thread.

TensorBoard orders everything by name: test/... opens before train/..., and of a run's metrics the hparams tab
shows the first five. So its page opens with the two losses pinned, and validation comes first in that tab.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tensorboard import main_lib, program
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine
from tornado.wsgi import WSGIContainer

if TYPE_CHECKING:
    from tornado.httputil import HTTPConnection, RequestStartLine
    from tornado.iostream import IOStream

MIB = 1 << 20
HEADERS = 1 << 14  # bytes
BODY = 4 * MIB  # a question about curves names its runs: those of 30,000 take 2 MiB
BODIES = 32 * MIB  # of all requests together
CONNECTIONS = 512  # that wait, and as many at work; one more that waits closes the one that waits longest
PATIENCE = 30  # seconds for a request's headers, and as many for its body
THREADS = 8
FIRST_TO_GO = (
    "500"  # of -1000 to 1000: the kernel ends this process for memory, never the one that holds the port
)
OPTIONS = (
    "--load_fast=auto",
    "--samples_per_plugin=scalars=10000000",
    "--reload_interval=5",
)  # every scalar point
PINNED = [{"plugin": "scalars", "tag": tag} for tag in ("train/loss", "val/loss")]  # where a run has them
HPARAMS = "/data/plugin/hparams/experiment"  # what the hparams tab asks for its columns
RATES = ("learning_rate", "lr")  # stand first among the settings that have one value in all runs
FONTS = b"url(/font-roboto/"  # in its pages, the one address that is wrong below a path
METRICS = ("val/loss", "val/", "test/", "train/")  # the order of its metrics by what their names begin with


def is_local(host: str) -> bool:
    """Say whether a request's Host is this machine: no page of another name has led the browser here."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def refusal(method: str, headers: HTTPHeaders) -> tuple[int, str] | None:
    """Return why a request is refused, as a status and a sentence; None for one that is served."""
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if not is_local(host):
        return 403, "This name is not this machine's: open http://127.0.0.1 with the same port."
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, "A page of another site asked for this."
    elsewhere = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
    if elsewhere and headers.get("Sec-Fetch-Dest") != "document":  # a link to TensorBoard may be followed
        return 403, "A page of another site asked for this."
    if method not in ("GET", "HEAD", "POST"):
        return 405, "Only GET, HEAD and POST are understood."
    if "Transfer-Encoding" in headers:
        return 411, "Say how long the body is."
    return None


class Guard(HTTPServer):
    """An HTTP server that bounds what waits and what is read, before TensorBoard sees a request."""

    def initialize(self, app: Any, **options: Any) -> None:
        """Set the limits; tornado calls this in the place of `__init__`."""
        options |= {
            "max_header_size": HEADERS,
            "max_body_size": BODY,
            "idle_connection_timeout": PATIENCE,
            "body_timeout": PATIENCE,
        }
        super().initialize(app, **options)
        self.waiting: dict[IOStream, None] = {}  # for a request, oldest first
        self.working: set[IOStream] = set()
        self.bodies = 0  # bytes promised by the requests that are being read

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a connection; where too many wait, close the one that waits longest."""
        if len(self.waiting) >= CONNECTIONS:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            oldest.close()
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection that is closed."""
        self.waiting.pop(server_conn.stream, None)
        self.working.discard(server_conn.stream)
        super().on_close(server_conn)

    def start_request(self, server_conn: Any, request_conn: Any) -> HTTPMessageDelegate:
        """Return what looks at the next request of a connection."""
        self.working.discard(server_conn.stream)
        self.waiting[server_conn.stream] = None
        application = super().start_request(server_conn, request_conn)
        return Visitor(self, server_conn.stream, request_conn, application)


class Visitor(HTTPMessageDelegate):
    """One request: passed on to TensorBoard, or refused."""

    def __init__(
        self, guard: Guard, stream: IOStream, connection: HTTPConnection, application: HTTPMessageDelegate
    ) -> None:
        self.guard, self.stream, self.connection, self.application = guard, stream, connection, application
        self.refused, self.length = False, 0

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        """Decide, before any of the body is read."""
        told = headers.get("Content-Length", "0")
        length = int(told) if told.isascii() and told.isdigit() else 0  # tornado refuses what is no number
        why = refusal(start_line.method, headers)
        if why is None and length > BODY:
            why = 413, f"More than {BODY} bytes."
        if why is None and (self.guard.bodies + length > BODIES or len(self.guard.working) >= CONNECTIONS):
            why = 503, "Too many requests at once; ask again in a minute."
        if why is not None:
            return self._refuse(start_line.method, *why)
        self.length = length
        self.guard.bodies += length
        return self.application.headers_received(start_line, headers)

    def _refuse(self, method: str, code: int, sentence: str) -> None:
        self.refused = True
        body = f"{sentence}\n".encode()
        headers = HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(body))})
        start_line = ResponseStartLine("HTTP/1.1", code, sentence.partition(";")[0].rstrip("."))
        self.connection.write_headers(start_line, headers, b"" if method == "HEAD" else body)
        self.connection.finish()

    def data_received(self, chunk: bytes) -> Any:
        """Hand a piece of the body on; what belongs to a refused request is thrown away."""
        return None if self.refused else self.application.data_received(chunk)

    def finish(self) -> None:
        """Let TensorBoard answer."""
        self._release()
        if not self.refused:
            self.guard.waiting.pop(self.stream, None)
            self.guard.working.add(self.stream)
            self.application.finish()

    def on_connection_close(self) -> None:
        """Forget what was read."""
        self._release()
        if not self.refused:
            self.application.on_connection_close()

    def _release(self) -> None:
        self.guard.bodies -= self.length
        self.length = 0


def never_silent(application: Any) -> Any:
    """Return a WSGI application that answers 500 where the given one raises, and tornado would not at all."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            chunks = application(environ, start_response)
            body = list(chunks)
            if hasattr(chunks, "close"):
                chunks.close()
        except Exception:  # the data server is gone, say; keeper.py starts everything again
            traceback.print_exc()
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            body = [b"TensorBoard failed; its log says why: make logs ARGS=tensorboard\n"]
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    return answer


def arranged(application: Any) -> Any:
    """Return TensorBoard's WSGI application with what a person looks for first: in its page, its columns."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] == "GET" and path == "/" and "pinnedCards=" not in query:
            pinned = f"pinnedCards={quote(json.dumps(PINNED, separators=(',', ':')))}"
            # not `/?...`: behind JupyterLab's door the page lies below a path
            start_response("302 Found", [("Location", "?" + "&".join(filter(None, [query, pinned])))])
            return []
        if path not in ("/", HPARAMS) and not path.endswith(".html"):
            return application(environ, start_response)
        started: list[Any] = []
        chunks = application(
            environ | {"HTTP_ACCEPT_ENCODING": "identity"}, lambda *line: started.extend(line)
        )
        body = b"".join(chunks)
        status, headers = started[:2]
        if path != HPARAMS:
            body = body.replace(FONTS, b"url(" + b"../" * (path.count("/") - 1) + b"font-roboto/")
        elif status.startswith("200"):
            columns = json.loads(body)
            columns.get("metricInfos", []).sort(key=place)
            columns.get("hparamInfos", []).sort(
                key=lambda each: (not each.get("differs"), each["name"] not in RATES)
            )
            body = json.dumps(columns).encode()
        kept = [each for each in headers if each[0].lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    return answer


def place(metric: dict[str, Any]) -> tuple[int, bool]:
    """Return where a metric stands in the hparams tab; equals stay as TensorBoard has them, by name."""
    tag = metric["name"]["tag"]
    first = [number for number, start in enumerate(METRICS) if tag.startswith(start)]
    return min(first, default=len(METRICS)), tag.startswith("vitals/")


class Server(program.TensorBoardServer):
    """What TensorBoard starts in the place of its own server, as its `server_class`."""

    def __init__(self, wsgi_app: Any, flags: Any) -> None:  # noqa: ARG002
        self.wsgi_app = wsgi_app
        self.socket = socket.socket(fileno=int(sys.argv[1]))

    def serve_forever(self) -> None:
        """Serve until the process is ended."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.socket.setblocking(False)
        server = Guard(WSGIContainer(never_silent(arranged(self.wsgi_app)), ThreadPoolExecutor(THREADS)))
        server.add_sockets([self.socket])
        await asyncio.Event().wait()

    def get_url(self) -> str:
        """Return where a person finds the page: at another port than in the container, or at another name."""
        shown = os.environ.get("TENSORBOARD_SHOWN") or self.socket.getsockname()[1]
        return f"{shown}/" if "://" in str(shown) else f"http://127.0.0.1:{shown}/"


def end_with_keeper() -> None:
    """End this process as soon as the one that started it is gone, which closes its end of the pipe."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Serve the folder of runs."""
    threading.Thread(target=end_with_keeper, daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    main_lib.global_init()
    board = program.TensorBoard(server_class=Server)
    board.configure(["tensorboard", f"--logdir={sys.argv[2]}", *OPTIONS])
    return board.main()


if __name__ == "__main__":
    sys.exit(main())
