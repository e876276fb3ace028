"""Who may look at the board: alone whoever knows its path, behind Jupyter whom its door has let in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("fastapi")

from trainlab.board.guard import Guard

TOKEN = "a-token-of-this-start"


def seen(path: str, token: str | None = TOKEN, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    """Return what the application behind the guard is handed, or the status that the guard answers with."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((scope["root_path"], scope["path"]))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    asyncio.run(Guard(app, token)(scope, None, send))  # type: ignore[arg-type]
    return found[0]


def test_alone_only_below_the_path_that_holds_the_token() -> None:
    assert seen(f"/{TOKEN}/run/news/one") == (f"/{TOKEN}", f"/{TOKEN}/run/news/one")


@pytest.mark.parametrize("path", ["/", "/run/news/one", f"/{TOKEN}", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/", "/é/"])
def test_alone_nobody_else_is_let_in(path: str) -> None:
    assert seen(path) == 403


def test_alone_a_header_that_a_proxy_would_send_opens_nothing() -> None:
    assert seen("/", headers=((b"x-forwarded-context", f"/{TOKEN}".encode()),)) == 403


def test_behind_jupyter_the_path_is_what_the_proxy_says() -> None:
    headers = ((b"x-forwarded-context", b"/secret/board/"),)
    assert seen("/run/news/one", None, headers) == ("/secret/board", "/secret/board/run/news/one")


def test_the_health_of_a_board_is_no_secret() -> None:
    assert seen("/health") == ("", "/health")
