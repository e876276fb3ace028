"""What a form asks for, and how it is answered: a sentence, and the page that it leads to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.datastructures import FormData

from trainlab.board.audit import Line
from trainlab.board.pages import FORM, Board
from trainlab.cleaning import printable
from trainlab.errors import UserError

if TYPE_CHECKING:
    from trainlab.runs.listing import Row

LONGEST = 2000  # characters of a sentence in a header


@dataclass(frozen=True)
class Told:
    """What was done, and the page about it; `leave` says that the page at hand is left for that."""

    sentence: str
    to: str = "/"
    leave: bool = True


@dataclass(frozen=True)
class Asked:
    """A form that was sent; `line` is what is written down of it."""

    board: Board
    request: Request
    form: FormData = field(repr=False)
    line: Line

    def text(self, name: str) -> str:
        """Return a field, '' where there is none; lines end as they do here."""
        return str(self.form.get(name, "")).replace("\r\n", "\n")

    def rows(self) -> list[Row]:
        """Return the runs that are meant, each once; raise UserError for one that is not in the table."""
        return self.board.live.named(map(str, self.form.getlist("run")))

    def row(self) -> Row:
        """Return the one run that is meant; raise UserError for any other number of them."""
        rows = self.rows()
        if len(rows) > 1:
            raise UserError(f"{len(rows)} runs are chosen. Choose one: this is done with one at a time.")
        return rows[0]


async def posted(request: Request) -> FormData:
    """Return the form that a request brings, within its bounds."""
    return await request.form(**FORM)


def page_of(label: str) -> str:
    """Return the path of a run's page."""
    return f"/run/{quote(printable(label))}"


def redirected(request: Request, path: str) -> Response:
    """Return what leads a browser to a page of ours, with htmx or without."""
    place = f"{request.scope.get('root_path', '')}{path}"
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": place})
    return Response(status_code=303, headers={"location": place})


def toasted(sentence: str) -> Response:
    """Return what lets the page at hand show a sentence (static/board.js), and changes nothing else."""
    told = json.dumps({"told": printable(" ".join(sentence.split())[:LONGEST])})
    return Response(status_code=204, headers={"HX-Trigger": told})


def live(board: Board, request: Request, template: str, **values: Any) -> Response:
    """Return a page, or the part of it that moves where that alone is asked for."""
    if "hx-request" in request.headers:
        return board.fragment(request, f"{template}_part.html", **values)
    return board.page(request, f"{template}.html", **values)
