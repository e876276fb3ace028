"""The board's pages put together: each form checked, each refusal a sentence."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from trainlab.board import actions, comparing, forms, one, sweeping, table
from trainlab.board.live import Live
from trainlab.board.pages import FORM, XSRF, Board
from trainlab.errors import UserError

PAGES = (table, comparing, one, actions, forms, sweeping)


async def _own_form(request: Request, x_xsrftoken: Annotated[str, Header()] = "") -> None:
    """Refuse what no page of ours has sent: an action brings the value of the cookie besides the cookie."""
    if request.method in ("GET", "HEAD"):
        return
    told: Any = x_xsrftoken
    if not told:
        async with request.form(**FORM) as form:
            told = form.get(XSRF, "")
    known = request.cookies.get(XSRF, "")
    if not (known and isinstance(told, str) and secrets.compare_digest(told.encode(), known.encode())):
        raise UserError("This form is not from a page of this board, or too old. Load the page again.")


def application(logs: Path) -> FastAPI:
    """Return the application that shows the runs below a folder."""
    board = Board(logs, Live(logs))
    app = FastAPI(
        title="trainlab board",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(_own_form)],
    )
    for each in PAGES:
        app.include_router(each.router(board))
    app.mount("/static", StaticFiles(packages=[("trainlab.board", "static")]))

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        return "ok"

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> Response:
        return _told(board, request, str(error), 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
        return _told(board, request, wrong, 422)

    @app.exception_handler(HTTPException)
    async def missing(request: Request, error: HTTPException) -> Response:
        there = "There is no such page." if error.status_code in (404, 405) else f"{error.detail}"
        return _told(board, request, there, error.status_code)

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        why = "The board failed here. What it prints says why; in the stack: make logs"
        return _told(board, request, why, 500)

    return app


def _told(board: Board, request: Request, sentence: str, status: int) -> Response:
    """Return a sentence: as text for htmx, which puts it above the page (static/board.js), else a page."""
    if "hx-request" in request.headers:
        return PlainTextResponse(sentence, status)
    return board.page(request, "message.html", status, sentence=sentence)
