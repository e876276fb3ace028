"""The form from which a notebook or script below notebooks/ is started, and no other program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from trainlab import literals, paths
from trainlab.board import asking
from trainlab.board.asking import Told
from trainlab.errors import UserError
from trainlab.headless import fields, finding, starting
from trainlab.run import record
from trainlab.secrets import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from typing import Any

    from trainlab.board.asking import Asked
    from trainlab.board.pages import Board
    from trainlab.runs.listing import Row

OWN = "set."  # what the names of those fields begin with that are settings


def router(board: Board) -> APIRouter:
    """Return the routes of this page."""
    routes = APIRouter()

    @routes.get("/start", response_class=HTMLResponse)
    def start(request: Request, notebook: str = "", run: str = "") -> HTMLResponse:
        if not notebook and not run:
            return board.page(
                request, "programs.html", programs=list(finding.below_notebooks()), place=paths.notebooks()
            )
        row = board.live.named([run])[0] if run else None
        name = finding.name_of(row.folder) if row else notebook
        answer = starting.ask(finding.named_below(name))
        form: dict[str, Any] = {"program": name, "of": run, "values": {}, "others": ""}
        if row:
            usual = {each["name"]: each["default"] for each in answer["fields"]}
            form["values"] = {
                key: fields.shown(value)
                for key, value in row.config.items()
                if value not in (HIDDEN, record.plain(literals.read(usual.get(key, HIDDEN))))
            }
            form["others"] = "\n".join(_others(row, usual.keys()))
        return _page(board, request, 200, answer, form)

    return routes


def start(asked: Asked) -> Told | Response:
    """Start a run with the settings of a form; the form comes again where they can't be."""
    form: dict[str, Any] = {name: asked.text(name) for name in ("program", "name", "of", "others")}
    form["values"] = settings_of(asked)
    words = [each for each in map(str.strip, form["others"].split("\n")) if each]
    answer = starting.ask(
        finding.named_below(form["program"]),
        values=form["values"],
        words=[each for each in words if not each.startswith("-")],
        arguments=[each for each in words if each.startswith("-")],
        name=form["name"],
        start=True,
    )
    asked.line.settings = answer["changed"]
    if answer["faults"]:
        asked.line.outcome = f"refused: {' '.join(answer['faults'].values())}"
        return _page(asked.board, asked.request, 422, answer, form)
    label = os.path.relpath(answer["folder"], asked.board.logs.resolve())
    asked.line.runs = [label]
    return Told(f"{label} has started.", asking.page_of(label))


def resume(asked: Asked) -> Told:
    """Let a run go on, in its own folder, with its own settings."""
    row = asked.row()
    path = finding.named_below(finding.name_of(row.folder))
    answer = starting.ask(path, resume=str(row.folder.resolve()), start=True)
    if faults := answer["faults"]:
        raise UserError(" ".join(faults.values()))
    return Told(f"{row.label} goes on.", asking.page_of(row.label))


def settings_of(asked: Asked) -> dict[str, str]:
    """Return the settings in a form, by their names."""
    names = [name for name in asked.form if name.startswith(OWN)]
    return {name.removeprefix(OWN): asked.text(name) for name in names}


def _others(row: Row, names: Container[str]) -> list[str]:
    """Return what a script's run was told that is in no field: key=value, and arguments."""
    arguments = record.read(row.folder).model_dump().get("arguments")
    words = [each for each in arguments if isinstance(each, str)] if isinstance(arguments, list) else []
    own = {word: word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    own = {word: key for word, key in own.items() if key in row.config}  # they were settings
    return [
        word.removeprefix("--") if word in own else word for word in words if own.get(word, word) not in names
    ]


def _page(
    board: Board, request: Request, status: int, answer: Mapping[str, Any], form: Mapping[str, Any]
) -> HTMLResponse:
    """Return the form, as it was filled in."""
    told = {"name": "", **form, "fields": answer["fields"], "faults": answer["faults"]}
    return board.page(
        request, "start.html", status, **told, is_script=form["program"].endswith(finding.SCRIPT)
    )
