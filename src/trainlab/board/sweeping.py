"""The pages of sweeps: all of them, one with its trials, and the form that starts one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from trainlab import detaching, ending, extras, paths
from trainlab.board import asking, forms
from trainlab.board.asking import Told
from trainlab.config import SettingsError
from trainlab.errors import UserError
from trainlab.headless import finding, starting
from trainlab.sweeps import definition as sweeps
from trainlab.sweeps import display, listing, order, resuming, slots, stopping, summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.board.asking import Asked
    from trainlab.board.pages import Board
    from trainlab.sweeps.queue import Trial

MOST_COMPARED = 10  # trials in the link to their curves
MOST_SHOWN = 200  # trials in the table


def router(board: Board) -> APIRouter:
    """Return the routes of these pages."""
    routes, lately = APIRouter(), listing.Lately(board.logs)

    @routes.get("/sweeps", response_class=HTMLResponse)
    def show_all(request: Request) -> Response:
        known = []
        for each in lately():
            best = display.ranked(each.definition, each.trials)[:1] if each.definition else []
            known.append((each, listing.state(each), display.counts(each.trials), best))
        return asking.live(board, request, "sweeps", sweeps=known)

    @routes.get("/sweeps/new", response_class=HTMLResponse)
    def new(request: Request, notebook: str) -> HTMLResponse:
        extras.need("optuna", "A sweep")
        return _form(board, request, 200, {"program": notebook, "values": {}}, {})

    @routes.get("/sweep/{name}", response_class=HTMLResponse)
    def show(request: Request, name: str, weigh: bool = False) -> Response:
        known = next((each for each in lately() if each.name == name), None)
        if known is None:  # it may have begun since
            lately.look_again()
            known = next((each for each in lately() if each.name == name), None)
        if known is None:
            sweeps.load(name, board.logs)  # says that there is none, and what is near
        if known is None or known.definition is None or known.fault:
            raise UserError(known.fault if known else f"There is no sweep {name!r} yet. Load the page again.")
        found, trials = known.definition, display.ordered(known.definition, known.trials)
        rows = {row.label: row for row in board.live.rows()}

        def reached(trial: Trial) -> str:
            own = [rows[run] for run in display.runs_of_seeds(found, trial) if run in rows]
            values = [row.best.get(found.goal, row.last.get(found.goal, math.nan)) for row in own]
            return display.value_text(found, trial, [[each] for each in values])

        ranked = display.ranked(found, trials)
        compared = [run for each in ranked[:MOST_COMPARED] for run in display.runs_of_seeds(found, each)]
        begun = [each for each in trials if each.state != "waiting" or each.runs]
        values = {
            "sweep": known,
            "state": listing.state(known),
            "heading": display.heading(found, trials),
            "trials": [(each, reached(each), display.reason(found, each)) for each in begun[:MOST_SHOWN]],
            "left": len(begun[MOST_SHOWN:]),
            "best": ranked[:1],
            "compared": urlencode([("run", each) for each in compared]),
            "weighed": summary.weighed(found, trials) if weigh and ranked else "",
        }
        return asking.live(board, request, "sweep", **values)

    return routes


def start(asked: Asked) -> Told | Response:
    """Start a sweep as a form says; the form comes again where it can't be."""
    extras.need("optuna", "A sweep")
    form: dict[str, Any] = {
        name: asked.text(name).strip() for name in ("program", "name", "slots", *order.OPTIONS)
    }
    values = {name: each.strip() for name, each in forms.settings_of(asked).items()}
    form["values"] = {name: each for name, each in values.items() if each}
    form["others"] = asked.text("others")
    lines = [each.partition("=") for each in map(str.strip, form["others"].split("\n")) if each]
    asked.line.settings = form["values"] | {name.strip(): each.strip() for name, _, each in lines}
    path, logs, faults = finding.named_below(form["program"]), asked.board.logs, {}
    try:
        told = order.from_form(
            str(path),
            asked.line.settings,
            {name: form[name] for name in order.OPTIONS if form[name]},
            name=form["name"] or None,
            working_folder=str(paths.root()),
        )
        count = _number(form["slots"], "--slots")
        slots.find(count or None)
        made, remarks = order.define(told, logs)
        sweeps.create(made, logs)
    except SettingsError as error:
        faults = error.faults
    except UserError as error:
        said = str(error)
        option = "--mode" if "--mode" in said else said.split(maxsplit=1)[0].rstrip(":")
        faults = {option if option.startswith("--") else starting.at(said, list(asked.line.settings)): said}
    if faults:
        asked.line.outcome = f"refused: {' '.join(faults.values())}"
        return _form(asked.board, asked.request, 422, form, faults)
    _led(asked, made.name, count)
    said = " ".join([f"The sweep {made.name} has started.", *remarks])
    return Told(said, _page(made.name), leave=not remarks)


def stop(asked: Asked) -> Told:
    """End the process that leads a sweep: its runs save checkpoints, and their trials wait again."""
    name, logs = asked.text("sweep"), asked.board.logs

    def end() -> str:
        stopping.stop(name, logs)
        return f"The sweep {name} has stopped; its trials wait until it goes on."

    return Told(ending.ended({sweeps.folder(name, logs): end}), _page(name), leave=False)


def resume(asked: Asked) -> Told:
    """Let a sweep go on, with more trials where that is said."""
    extras.need("optuna", "A sweep")
    name = asked.text("sweep")
    more, count = (_number(asked.text(each).strip(), f"--{each}") for each in ("trials", "slots"))

    def agreed(what: str) -> None:
        if asked.text("anyway") != "yes":
            raise UserError(f"{what} If it does, tick that in the sweep's page. Else start a new sweep.")

    slots.find(count or None)
    resuming.resumed(name, order.Order(""), more=more, agreed=agreed, logs=asked.board.logs)
    _led(asked, name, count)
    return Told(f"The sweep {name} goes on.", _page(name))


ACTIONS: dict[str, Callable[[Asked], Told | Response]] = {
    "sweep": start,
    "sweep-stop": stop,
    "sweep-resume": resume,
}


def _form(
    board: Board, request: Request, status: int, form: Mapping[str, Any], faults: Mapping[str, str]
) -> HTMLResponse:
    """Return the form of a new sweep, as it was filled in."""
    answer = starting.ask(finding.named_below(form["program"]))
    told = {"form": form, "fields": answer["fields"], "faults": {**answer["faults"], **faults}}
    return board.page(request, "sweep_new.html", status, **told)


def _number(text: str, name: str) -> int:
    """Return a number that was written, 0 for none; raise SettingsError for anything else."""
    if not re.fullmatch(r"[0-9]{0,9}", text):
        raise SettingsError([(name, f"{text[:20]}: expected a whole number.")])
    return int(text or 0)


def _led(asked: Asked, name: str, count: int) -> None:
    """Let a process of its own lead a sweep, as `trainlab sweep -d`; the board has asked what that asks."""
    logs = asked.board.logs.absolute()
    words = ["sweep", "--resume", name, "--anyway", "--logs", str(logs)]
    detaching.start(
        [*words, *(["--slots", str(count)] if count else [])], sweeps.folder(name, logs) / sweeps.OUTPUT
    )


def _page(name: str) -> str:
    return f"/sweep/{quote(name)}"
