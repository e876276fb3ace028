"""What stands before the application: who may ask, how much, and how many wait at once.

A request is read whole before it counts as waiting, so that whoever sends slowly keeps nobody from being
answered.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import re
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB = 1 << 20
BODY = 4 * MIB  # bytes of a request
BODIES = 64 * MIB  # of all requests that are being read; more end the one that is read for the longest
READING = 256  # requests that are being read; one more ends the one that is read for the longest
WAITING = 64  # requests that wait or are worked at; one more is asked to come again
PATIENCE = 30  # seconds for a request's body, and for each part of an answer to be taken
CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")  # of forms; Python knows more, some of which are no charsets
OPEN = ("/health", "/ready")  # what says no more than that it serves, and has to say it under load
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with less a browser names no origin to us either
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Counting(Protocol):
    """What is told of each answer."""

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""

    def wait(self, requests: int) -> None:
        """Note how many requests wait or are worked at."""


class RefusedError(Exception):
    """A request that is not handed on; its text is a sentence for whoever asked."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Limits:
    """An application that hands on what is within its limits.

    Args:
        app: What answers.
        counts: What is told of each answer.
        page: Makes a page of a status and a sentence, for browsers.
        token: What whoever asks has to know; empty where anybody may ask.
        hosts: Names of this machine, besides localhost and addresses of numbers; None where whoever hands
            requests on has looked at them.
        headers: Of each answer that has none of the name itself.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        app: ASGIApp,
        counts: Counting,
        page: Callable[[int, str], str],
        token: str = "",
        hosts: Iterable[str] | None = (),
        headers: Mapping[str, str] = HEADERS,
    ) -> None:
        self._app, self._counts, self._page = app, counts, page
        self._token, self._own_headers = token.encode(), headers
        self._hosts = None if hosts is None else {"localhost", *hosts}
        self._waiting = self._bytes = 0
        self._reading: dict[asyncio.Timeout, bytearray] = {}  # what is held of each, the longest first
        self.closing = False  # from then on each answer ends its connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": self._headers(message["headers"])}
            async with asyncio.timeout(PATIENCE):  # of somebody who doesn't take it
                await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
            body = await self._body(headers, receive)
            began = time.monotonic()
            await self._admitted(scope, body, receive, answer)
        except RefusedError as error:
            await self._refuse(error, scope, headers, answer)
        except TimeoutError:
            status = 499  # nobody took the answer: uvicorn closes the connection
        finally:
            self._counts.answered(scope["path"], status, time.monotonic() - began)
        return None

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raise RefusedError for whoever may not ask."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._known(host):
            raise RefusedError(403, "This name is not this machine's: ask for localhost, or for its address.")
        site = headers.get("sec-fetch-site", "none")
        # a browser says same-origin itself, no script can; behind a proxy the origin has the proxy's name
        own = site == "same-origin" or (
            site == "none" and (origin is None or origin.partition("://")[2] == host)
        )
        if scope["method"] not in ("GET", "HEAD") and not own:
            raise RefusedError(403, "A page of another site asked for this.")
        charset = re.search(r"charset\s*=\s*\"?([^\s;\"]*)", headers.get("content-type", ""), re.IGNORECASE)
        if charset and charset[1].lower() not in CHARSETS:
            raise RefusedError(415, "Text is understood in utf-8 alone.")
        if self._token and scope["path"] not in OPEN and not self._knows(headers.get("authorization", "")):
            raise RefusedError(
                401,
                "This server asks for its token: as `Authorization: Bearer TOKEN`, or in a browser as the "
                "password, with any name.",
                www_authenticate='Basic realm="trainlab", charset="UTF-8"',
            )

    def _known(self, host: str) -> bool:
        """Say whether this is a name of this machine: a page of another name may have led a browser here."""
        name = re.sub(r":\d*$", "", host).strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return self._hosts is None or name in self._hosts
        return True

    def _knows(self, authorization: str) -> bool:
        """Say whether a request brings the token."""
        scheme, _, told = authorization.partition(" ")
        brought = told.strip(" \t").encode("latin-1", "replace")
        if scheme.lower() == "basic":
            try:
                brought = base64.b64decode(brought, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(brought, self._token)

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Return a request's body; raise RefusedError for one that is too large, or comes too slowly."""
        too_large = RefusedError(413, f"More than {BODY // MIB} MiB, which is the most that is read.")
        if re.fullmatch(r"\d{1,20}", size := headers.get("content-length", "")) and int(size) > BODY:
            raise too_large
        held, whole = bytearray(), False
        if len(self._reading) >= READING:
            self._end_longest()
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                self._reading[limit] = held
                while not whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "The connection ended within the request.")
                    part = message.get("body", b"")
                    held += part
                    self._bytes += len(part)
                    whole = not message.get("more_body", False)
                    if len(held) > BODY:
                        raise too_large
                    while self._bytes > BODIES:
                        self._end_longest()
                    if limit not in self._reading:
                        raise TimeoutError
        except TimeoutError:
            raise RefusedError(408, "The request came too slowly. Send it again.") from None
        finally:
            self._reading.pop(limit, None)
            self._bytes -= len(held)
        return bytes(held)

    def _end_longest(self) -> None:
        """End the request that is read for the longest, and forget what is held of it."""
        limit, held = next(iter(self._reading.items()))
        del self._reading[limit]  # at once: more may come before it has ended
        self._bytes -= len(held)
        held.clear()
        if not limit.expired():  # else it is ending already
            limit.reschedule(0)

    async def _admitted(self, scope: Scope, body: bytes, receive: Receive, answer: Send) -> None:
        """Let the application answer, unless too many wait for it."""
        if scope["path"] in OPEN:
            return await self._app(scope, _told(body, receive), answer)
        if self._waiting >= WAITING:
            raise RefusedError(503, "Too many ask at once. Try again in a second.", retry_after="1")
        self._waiting += 1
        self._counts.wait(self._waiting)
        try:
            await self._app(scope, _told(body, receive), answer)
        finally:
            self._waiting -= 1
            self._counts.wait(self._waiting)
        return None

    async def _refuse(self, error: RefusedError, scope: Scope, headers: dict[str, str], answer: Send) -> None:
        """Answer with a sentence: as a page for a browser, as JSON for a program."""
        if "text/html" in headers.get("accept", ""):
            kind, content = "text/html; charset=utf-8", self._page(error.status, str(error))
        else:
            kind, content = "application/json", json.dumps({"detail": str(error)})
        body = content.encode()
        known = {"content-type": kind, "content-length": str(len(body)), **error.headers}
        found = [(name.encode(), value.encode()) for name, value in known.items()]
        await answer({"type": "http.response.start", "status": error.status, "headers": found})
        await answer({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _headers(self, known: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return an answer's headers with ours, where it has none of the name itself."""
        found = list(known)
        own = {**self._own_headers, **({"connection": "close"} if self.closing else {})}
        names = {name for name, _ in found}
        return [
            *found,
            *((key.encode(), value.encode()) for key, value in own.items() if key.encode() not in names),
        ]


def _told(body: bytes, receive: Receive) -> Receive:
    """Return what tells the application a body that was read before, and then what else happens."""
    waiting: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def told() -> Message:
        return waiting.pop() if waiting else await receive()

    return told
