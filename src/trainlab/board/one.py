"""One run: how it goes or why it died, its settings, curves, pictures, output, notebook and checkpoints.

What lies in a run's folder may be anybody's: files are looked up in lists, never by a path that was asked
for, and what a browser could obey, a notebook or an SVG, is shown where nothing of it can act.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Header, Request, Response
from fastapi.responses import HTMLResponse

from trainlab import experiments
from trainlab.board.comparing import MARKUP, pictures_of
from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.headless import output, rendering
from trainlab.run import checkpoint, images, stopping
from trainlab.run.monitor import VITALS
from trainlab.run.restoring import BEST
from trainlab.runs import columns, display
from trainlab.runs.compare.layout import layout
from trainlab.web.apart import apart

if TYPE_CHECKING:
    from trainlab.board.pages import Board
    from trainlab.runs.listing import Row

NOTEBOOK = "notebook.ipynb"  # headless.notebook's, without the import of nbformat
MOST_TAGS = 24  # whose curves are drawn: TensorBoard draws them all
SMOOTH = "0.6"  # TensorBoard's own
# Nothing of the notebook runs, asks or leads anywhere: not even a name is looked up
_SHUT = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; "
    "frame-ancestors 'self'; form-action 'none'; base-uri 'none'",
    "x-dns-prefetch-control": "off",
    "referrer-policy": "no-referrer",
}


def tensorboard(root: str, label: str) -> str:
    """Return the address of a run's curves in TensorBoard, behind the same door where there is one."""
    address = stopping.page(f"^{label}$")
    base, _, last = root.rpartition("/")
    if last == "board":  # the path that Jupyter has given the board
        return f"{base}/tensorboard/?{address.partition('?')[2]}"
    return "" if os.environ.get("TENSORBOARD_PORT") == "off" else address


def parts_of(row: Row) -> str:
    """Return what tells which parts the page of a run has by now: its curves, pictures and notebook."""
    ended = row.status != "running"
    parts = [sorted(row.last), sorted(pictures_of(row)), (row.folder / NOTEBOOK).is_file(), ended]
    return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:16]


def state_of(row: Row) -> dict[str, Any]:
    """Return how a run goes."""
    return {
        "metrics": display.metrics_table(row) if row.last else [],
        "progress": display.progress(row),
    }


def uses_of(request: Request, row: Row) -> dict[str, Any]:
    """Return whether a run that has ended can be `exported` and `served`, else `why` not; and its curves."""
    from trainlab.serving import served

    known, why = row.record, ""
    if known is None or known.experiment not in experiments.with_file(experiments.EXPORT):
        why = f"{row.experiment or 'It'} has no {experiments.EXPORT}"
    elif not (row.folder / BEST).is_file():
        why = f"it has no {BEST}"
    return {
        "exported": not why,
        "served": not why or (known and served.made_of(known)),
        "why": why,
        "tensorboard": tensorboard(request.scope.get("root_path", ""), printable(row.label)),
    }


def router(board: Board) -> APIRouter:
    """Return the routes of this page."""
    routes = APIRouter()

    def row_of(label: str) -> Row:
        return board.live.named([label])[0]

    @routes.get("/run/{label:path}", response_class=HTMLResponse)
    def show(request: Request, label: str) -> HTMLResponse:
        row = row_of(label)
        main, others = columns.main_metrics([row]), sorted(row.last)
        load = [tag for tag in others if tag.startswith(VITALS)]
        tags = [tag for tag in dict.fromkeys([*main, *others]) if tag not in load]
        drawn = [
            {
                "title": title,
                "layout": layout([row.run], chosen[:MOST_TAGS]),
                "data": urlencode(
                    {"run": label, "tag": chosen[:MOST_TAGS], "smooth": smooth}, True, errors="replace"
                ),
                "files": urlencode(
                    {"run": label, "tags": columns.join(chosen[:MOST_TAGS])}, errors="replace"
                ),
                "more": len(chosen[MOST_TAGS:]),
            }
            for title, chosen, smooth in (("Curves", tags, SMOOTH), ("Load of the machine", load, "0"))
            if chosen
        ]
        return board.page(
            request,
            "run.html",
            row=row,
            drawn=drawn,
            about=display.about(row),
            outputs=output.tails(row.folder),
            pictures=pictures_of(row),
            shown=parts_of(row),
            states=checkpoint.listed(row.folder),
            notebook=(row.folder / NOTEBOOK).is_file(),
            **state_of(row),
            **uses_of(request, row),
        )

    @routes.get("/part/{name}")
    def part(request: Request, name: str, run: str, shown: str = "") -> Response:
        row = row_of(run)
        if name == "state":
            answer = board.fragment(request, "run_state.html", row=row, **state_of(row))
            if shown != parts_of(row):
                answer.headers["x-grown"] = "true"  # static/board.js loads the page again
            return answer
        if name == "actions":
            return board.fragment(request, "run_actions.html", row=row, **uses_of(request, row))
        if name == "output":
            return board.fragment(request, "run_output.html", row=row, outputs=output.tails(row.folder))
        if name == "notebook":
            page = board.page(request, "run_notebook.html", body=apart(rendering.html, row.folder / NOTEBOOK))
            return HTMLResponse(page.body, headers=_SHUT)
        raise UserError(f"A run has no {name!r} to show.")

    @routes.get("/picture")
    def picture(run: str, name: str, sec_fetch_dest: Annotated[str, Header()] = "image") -> Response:
        found = pictures_of(row_of(run)).get(name)
        if found is None:
            raise UserError(f"The run {run} has no picture {name!r}.")
        try:
            content, kind = images.content(found)
        except OSError as error:
            raise UserError(f"{found.path}: {error.strerror}.") from None
        if kind == images.SVG and sec_fetch_dest != "image":
            raise UserError("An SVG of a run is shown in its page alone: opened by itself it could act.")
        headers = MARKUP | ({"content-disposition": "attachment"} if kind == images.SVG else {})
        return Response(content, media_type=kind, headers=headers)

    @routes.post("/check")
    def check(request: Request, run: Annotated[str, Form()], name: Annotated[str, Form()]) -> HTMLResponse:
        state = next((each for each in checkpoint.listed(row_of(run).folder) if each.name == name), None)
        if state is None:
            raise UserError(f"The run {run} has no checkpoint {name!r}.")
        checkpoint.check(state.path)
        return board.page(request, "run_check.html", label=run, name=name)

    return routes
