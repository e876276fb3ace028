"""The page of all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

if TYPE_CHECKING:
    from trainlab.board.pages import Board


def router(board: Board) -> APIRouter:
    """Return the routes of this page."""
    routes = APIRouter()

    @routes.get("/", response_class=HTMLResponse)
    def show(request: Request) -> HTMLResponse:
        return board.page(request, "runs.html", rows=[row for row in board.live.rows() if not row.looks])

    return routes
