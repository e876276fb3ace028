"""What is done to runs from the pages: a form that is checked, written down, and answered by a sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from stat import S_ISREG
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from starlette.datastructures import FormData

from trainlab import ending
from trainlab.board import asking, audit, forms, sweeping, table
from trainlab.board.asking import Asked, Told
from trainlab.cleaning import printable
from trainlab.errors import UserError, some
from trainlab.files import telling
from trainlab.headless import jobs
from trainlab.run import stopping
from trainlab.run.find import run_folders
from trainlab.runs import trash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainlab.board.pages import Board

ARCHIVES = "archives"  # in logs/.board
MOST_TOLD = 200  # sentences that are kept for browsers without JavaScript


def router(board: Board) -> APIRouter:
    """Return the routes of the actions, and of the pages about what they have done."""
    routes = APIRouter()
    told: dict[str, Told] = {}

    @routes.post("/do/{action}")
    def do(action: str, request: Request, form: Annotated[FormData, Depends(asking.posted)]) -> Response:
        if action not in ACTIONS:
            raise UserError(f"There is no action {printable(action[:50])!r}.")
        with audit.noted(
            board.logs, action, [*map(str, form.getlist("run") + form.getlist("sweep"))]
        ) as line:
            answer = ACTIONS[action](Asked(board, request, form, line))
            board.live.look_again()  # the page that comes next shows what was done
            if isinstance(answer, Response):
                return answer
            line.outcome = answer.sentence
        if "hx-request" in request.headers:
            return asking.redirected(request, answer.to) if answer.leave else asking.toasted(answer.sentence)
        number = token_hex(8)
        told[number] = answer
        for old in list(told)[:-MOST_TOLD]:
            told.pop(old, None)
        return asking.redirected(request, answer.to if answer.leave else f"/told/{number}")

    @routes.get("/told/{number}", response_class=HTMLResponse)
    def show_told(number: str, request: Request) -> HTMLResponse:
        answer = told.get(number, Told("This was told before. What became of it stands in its page."))
        return board.page(request, "told.html", told=answer)

    @routes.get("/trash", response_class=HTMLResponse)
    def show_trash(request: Request) -> HTMLResponse:
        found = trash.entries(board.logs) if board.logs.is_dir() else {}
        sizes = {label: trash.size(entry.folder) for label, entry in found.items()}
        return board.page(request, "trash.html", entries=found, sizes=sizes)

    @routes.get("/jobs", response_class=HTMLResponse)
    def show_jobs(request: Request) -> HTMLResponse:
        known = [jobs.read(_jobs(board), name) for name in jobs.names(_jobs(board))[:100]]
        return board.page(request, "jobs.html", jobs=known, archives=_archives(board.logs))

    @routes.get("/job/{name}", response_class=HTMLResponse)
    def show_job(name: str, request: Request) -> Response:
        job = jobs.read(_jobs(board), name)
        size = _archives(board.logs).get(f"{name}.zip")
        serves = "-serve-" in name and _is_serving()
        return asking.live(board, request, "job", job=job, size=size, serves=serves)

    @routes.get("/archive/{name}")
    def download(name: str) -> FileResponse:
        if name not in _archives(board.logs):
            raise UserError("There is no such archive.")
        return FileResponse(board.logs / audit.FOLDER / ARCHIVES / name, filename=name)

    return routes


def stop(asked: Asked) -> Told:
    """End runs; each saves a checkpoint first."""
    rows = asked.rows()
    said = ending.ended({row.folder: partial(stopping.stop, row.folder) for row in rows})
    return Told(said, asking.page_of(rows[0].label) if len(rows) == 1 else "/", leave=False)


def clone(asked: Asked) -> Response:
    """Lead to the form that starts a run with the settings of another one."""
    return asking.redirected(asked.request, f"/start?{urlencode({'run': asked.row().label})}")


def delete(asked: Asked) -> Told | Response:
    """Move runs to the trash, once that was asked and agreed to."""
    logs = asked.board.logs
    folders = trash.movable([row.folder for row in asked.rows()], logs)
    if asked.text("sure") != "yes":
        asked.line.outcome = "asked whether it is meant"
        inside = {trash.run_id(each, logs): len(list(run_folders(each))) - 1 for each in folders}
        page = asked.board.page(asked.request, "sure.html", runs=inside, size=trash.size(*folders))
        page.headers.update({"HX-Retarget": "body", "HX-Reswap": "innerHTML"})
        return page
    labels = [trash.delete(folder, logs).label for folder in folders]
    return Told(f"In the trash: {some(labels)}.", "/trash")


def restore(asked: Asked) -> Told:
    """Bring deleted runs back to where they were."""
    deleted = trash.entries(asked.board.logs)
    labels = list(dict.fromkeys(map(str, asked.form.getlist("run"))))
    if not labels or not deleted.keys() >= set(labels):
        raise UserError("This run is not in the trash any more, or none is chosen. Load the page again.")
    back = [trash.restore(deleted[label]) for label in labels]
    return Told(f"Back again: {some(each.name for each in back)}.", "/")


def archive(asked: Asked) -> Told:
    """Pack runs into a file in logs/.board/archives, to be downloaded from there."""
    logs = asked.board.logs
    folders = trash.movable([row.folder for row in asked.rows()], logs)
    place, name = logs / audit.FOLDER / ARCHIVES, jobs.named("archive")
    with telling(logs):
        place.mkdir(parents=True, exist_ok=True)
    return _begun(asked, name, ["runs", "archive", *folders, "-o", place / f"{name}.zip"])


def export(asked: Asked) -> Told:
    """Export a run for use without torch."""
    folder = asked.row().folder
    return _begun(asked, jobs.named("export"), ["export-model", folder])


def serve(asked: Asked) -> Told:
    """Choose runs to be served, each exported first where it has no bundle yet."""
    folders = [row.folder for row in asked.rows()]
    return _begun(asked, jobs.named("serve"), ["serve", "--choose", *folders])


ACTIONS: dict[str, Callable[[Asked], Told | Response]] = {
    **{each.__name__: each for each in (stop, clone, delete, restore, archive, export, serve)},
    **{"start": forms.start, "resume": forms.resume, "note": table.note},
    **sweeping.ACTIONS,
}


def _begun(asked: Asked, name: str, words: Sequence[str | Path]) -> Told:
    """Start a command in the background, and lead to the page with what it prints."""
    logs = asked.board.logs.absolute()
    jobs.begin(_jobs(asked.board), name, [*map(str, words), "--logs", str(logs)])
    return Told(f"It has begun: {name}.", f"/job/{name}")


def _jobs(board: Board) -> Path:
    return board.logs / audit.FOLDER / "jobs"


def _archives(logs: Path) -> dict[str, int]:
    """Return the bytes of each archive that was packed, by its name, the newest first."""
    found = {path.name: path.lstat() for path in (logs / audit.FOLDER / ARCHIVES).glob("*.zip")}
    return {name: found[name].st_size for name in sorted(found, reverse=True) if S_ISREG(found[name].st_mode)}


def _is_serving() -> bool:
    """Tell whether the service of exported runs answers, where the stack has it."""
    host, _, port = os.environ.get("SERVE_AT", "127.0.0.1:8000").rpartition(":")
    try:
        socket.create_connection((host, int(port)), 0.5).close()
    except (OSError, ValueError):
        return False
    return True
