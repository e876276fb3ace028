"""The page of all runs: chosen by a filter, sorted, grouped, and what people say about each.

The choice stands in the address, so that it can be sent and kept as a bookmark. Columns are kept for next
time in a cookie: they are one reader's own, and need no right to write into the folder of runs.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from trainlab.board import asking, pages
from trainlab.errors import UserError
from trainlab.run import remarks
from trainlab.runs import columns, display, folding, grouping, query, ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.board.asking import Asked
    from trainlab.board.pages import Board
    from trainlab.runs.listing import Row

PAGE = 200  # rows
GROUPS = {
    "": "none",
    "experiment": "by experiment",
    "sweep": "by sweep",
    "data": "by data and split",
    "settings": "by settings, seeds folded",
}
COOKIE, KEPT = "columns", 365 * 86400  # seconds
ALWAYS = ("run", "status", "tags", "note")  # shown in every table; the reason stands below the status
MOST_SETTINGS, MOST_METRICS = 8, 6  # of the columns that nobody has chosen
TITLES = {"started": "age", "seconds": "duration"}
MOST_MEMBERS = 30  # runs of a fold that stand below it
VIEWS = 32  # choices whose rows are kept, for several who look at once


class Choice(BaseModel):
    """What somebody wants to see, as the address has it."""

    model_config = ConfigDict(frozen=True)

    where: str = ""
    sort: str = ""
    by: grouping.By = ""
    all: bool = False
    columns: str | None = None
    page: int = Field(1, ge=1, le=10**6)


@dataclass
class View:
    """The rows that a choice comes to, in their order, each with its group's title."""

    rows: list[tuple[str, Row]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    sorted_by: str = ""
    rises: bool = True
    remarks: list[str] = field(default_factory=list)
    looks: int = 0  # left out
    sizes: Counter[str] = field(default_factory=Counter)  # of the groups
    drawn: tuple[Any, Any] = None, b""  # the newest table as HTML, with what it was asked by


def router(board: Board) -> APIRouter:
    """Return the routes of this page."""
    routes, begun = APIRouter(), secrets.token_hex(8)
    views: dict[tuple[int, Choice, str], View] = {}

    def viewed(request: Request, choice: Choice) -> tuple[str, View]:
        """Return what changes with the table, or each minute, and its rows, made once for all who look."""
        version, rows = board.live.state()
        key = version, choice, request.cookies.get(COOKIE, "")
        found = views.get(key)
        if found is None:
            found = views[key] = view(rows, choice, unquote(key[2]))
            for old in list(views)[:-1]:
                if old[0] != version or len(views) > VIEWS:
                    views.pop(old, None)
        seen = repr((begun, key, int(time.time() / 60)))
        return hashlib.sha256(seen.encode()).hexdigest()[:16], found

    @routes.get("/")
    def show(request: Request, choice: Annotated[Choice, Query()], edit: str = "") -> Response:
        seen, found, error = "", View(), ""
        try:
            seen, found = viewed(request, choice)
        except UserError as refused:
            error = str(refused)
        values = _values(request, found, choice) | {"seen": seen, "error": error, "editing": edit}
        return board.page(request, "runs.html", 400 if error else 200, logs=board.logs, **values)

    @routes.get("/table")
    def part(request: Request, choice: Annotated[Choice, Query()]) -> Response:
        seen, found = viewed(request, choice)
        if request.headers.get("x-seen") == seen:
            return Response(status_code=204)
        key = request.scope.get("root_path"), request.url.query, seen
        asked, drawn = found.drawn
        if asked != key:  # once for all who look at the same
            values = _values(request, found, choice) | {"error": "", "editing": ""}
            drawn = board.page(request, "runs_table.html", logs=board.logs, **values).body
            found.drawn = key, drawn
        return Response(drawn, media_type="text/html", headers={"x-seen": seen})

    @routes.get("/columns")
    def keep(
        request: Request, column: Annotated[list[str] | None, Query()] = None, back: str = ""
    ) -> Response:
        names = columns.join(column or [])
        answer, path = _back(request, back, columns=names), f"{request.scope.get('root_path', '')}/"
        age = KEPT if names else 0
        answer.set_cookie(COOKIE, quote(names), age, path=path, httponly=True, samesite="strict")
        return answer

    return routes


def note(asked: Asked) -> Response:
    """Keep what somebody says of a run; the form comes again where it can't be, or another was faster."""
    row, shown = asked.row(), asked.text("shown")
    said = remarks.Remarks(tags=asked.text("tags").split(), note=asked.text("note"))
    try:
        remarks.replace(row.folder, said, shown)
    except UserError as error:
        asked.line.outcome = f"refused: {error}"
        now = error.now if isinstance(error, remarks.ChangedError) else shown
        told = {"label": row.label, "said": said, "shown": now, "back": asked.form.get("back")}
        return asked.board.page(asked.request, "note.html", 422, fault=str(error), **told)
    asked.line.outcome = "kept"
    if "back" in asked.form:
        return _back(asked.request, asked.text("back"), edit="")
    return asking.redirected(asked.request, asking.page_of(row.label))


def view(rows: Sequence[Row], choice: Choice, kept: str = "") -> View:
    """Return the rows that a choice comes to, with the columns that were kept where it names none."""
    chosen = query.select(rows, choice.where)
    left: list[Row] = [row for row in chosen if choice.all or not row.looks]
    found = View(looks=len(chosen) - len(left))
    if choice.by == "settings":
        folds = folding.fold(left)
        found.remarks, left = [folding.remark(folds, rows)], [*folds]
    found.known = [name for name in columns.known(left) if name not in (*ALWAYS, "reason", "folder")]
    if choice.sort and left:
        found.sorted_by = columns.resolve(choice.sort, left)
        found.rises = columns.rises(left, found.sorted_by)
        left = columns.ordered(left, found.sorted_by)
        if tag := columns.metric_of(found.sorted_by):
            found.remarks.append(ranking.remark(left, tag))
    if left and choice.columns:
        named = (columns.resolve(name, left) for name in columns.split(choice.columns))
        found.columns = [name for name in named if name not in ALWAYS]
    elif choice.columns is None:  # of what was kept, no run may have some any more
        found.columns = [name for name in columns.split(kept) if name in found.known]
        if found.columns and choice.by == "settings" and "n" not in found.columns:
            found.columns.insert(0, "n")  # what was kept was chosen where no seeds are folded
    found.columns = found.columns or _defaults(left, choice.by)
    found.known.sort(key=[*found.columns, *found.known].index)  # to take one out moves no other
    found.rows = list(grouping.titled(left, choice.by, found.sorted_by))
    found.sizes = Counter(title for title, _ in found.rows)
    return found


def _defaults(rows: Sequence[Row], by: str) -> list[str]:
    """Return the columns that `trainlab runs` shows, as far as a screen has room for them."""
    facts = [name for name in columns.swept(rows) if name != by]
    counted = ["n"] if columns.folded(rows) else []
    settings = [f"config.{key}" for key in columns.differing(rows)][:MOST_SETTINGS]
    metrics = columns.main_metrics(rows)[:MOST_METRICS]
    best = [f"{'best' if any(tag in row.best for row in rows) else 'last'}.{tag}" for tag in metrics]
    experiment = ["experiment"] if by != "experiment" and len({row.experiment for row in rows}) > 1 else []
    return [*experiment, *counted, *facts, *settings, *best, "started", "seconds"]


def _values(request: Request, found: View, choice: Choice) -> dict[str, Any]:
    """Return what both templates name."""
    last = max(1, -(-len(found.rows) // PAGE))
    number = min(choice.page, last)
    shown = found.rows[(number - 1) * PAGE : number * PAGE]
    return {
        "choice": choice,
        "view": found,
        "groups": GROUPS,
        "page": number,
        "last_page": last,
        "sections": [
            (title, [row for _, row in part]) for title, part in groupby(shown, lambda each: each[0])
        ],
        "query": lambda **changed: pages.query(request, **changed),
        "title": _title,
        "cell": _cell,
        "state": display.state,
        "numbers": {name for name in found.columns if any(_is_number(row, name) for _, row in shown)},
        "quote": quote,
        "most_members": MOST_MEMBERS,
    }


def _title(column: str) -> str:
    group, _, name = column.partition(".")
    return name if name and group in ("config", "best") else TITLES.get(column, column)


def _cell(row: Row, column: str) -> str:
    """Return a cell as `trainlab runs` has it."""
    if column == "started":
        return display.age(row.started)
    if column == "seconds":
        return display.duration(row.seconds)
    if column.startswith("best."):
        return display.best_and_last(row, columns.metric_of(column))
    return display.cell(row, column)


def _is_number(row: Row, column: str) -> bool:
    found = columns.value(row, column)
    return column in TITLES or (isinstance(found, int | float) and not isinstance(found, bool))


def _back(request: Request, back: str, **changed: str) -> Response:
    """Return the way back to the table that somebody came from: never to another address."""
    kept = {name: value for name, value in ({**dict(parse_qsl(back)), **changed}).items() if value}
    return asking.redirected(request, f"/?{urlencode(kept)}")
