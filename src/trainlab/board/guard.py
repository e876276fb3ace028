"""Who may look at the board: whoever knows its path, or whom Jupyter's door has let in."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from trainlab.web.limits import HEADERS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

POLICY = HEADERS | {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-src 'self'; "
    "base-uri 'none'; frame-ancestors 'self'",
}
CONTEXT = b"x-forwarded-context"  # jupyter-server-proxy tells it, and no browser's own gets through


class Guard:
    """An application below the path that it is looked at from.

    Alone, the path begins with the token: a cookie would go to every port of this machine, whoever listens
    there. Behind Jupyter, on a socket that nobody else can open, it is what the proxy says.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on with its root path, or answer that it is nobody's business."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if self._token is None:
            root = dict(scope["headers"]).get(CONTEXT, b"").decode("latin-1").rstrip("/")
            path = root + path
        elif hmac.compare_digest(path[: len(self._token) + 2].encode(), f"/{self._token}/".encode()):
            root = f"/{self._token}"
        elif path == "/health":
            root = ""
        else:
            words = b"The address of this board holds its token: `trainlab board` has printed it.\n"
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(words)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else words})
            return
        await self._app({**scope, "root_path": root, "path": path}, receive, send)
