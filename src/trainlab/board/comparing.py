"""Runs beside each other: curves, settings, pictures. The address holds what is chosen."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from trainlab.board.live import known_by
from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.run import images
from trainlab.runs import columns, display
from trainlab.runs.compare import TITLES, XAxis
from trainlab.runs.compare.layout import layout
from trainlab.runs.kept import Kept
from trainlab.runs.listing import Row
from trainlab.web.apart import apart

if TYPE_CHECKING:
    from trainlab.board.live import Live
    from trainlab.board.pages import Board
    from trainlab.runs.compare.comparison import Comparison

# What reads curves takes pandas, twice the memory of all else: it is imported where somebody compares
MOST_PICTURES = 8  # names whose pictures stand side by side
MARKUP = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
KINDS = {"svg": images.SVG, "png": "image/png", "csv": "text/csv; charset=utf-8"}


CURVES, IMAGES, DRAWN = Kept(32), Kept(64), Kept(16)
AT_ONCE = BoundedSemaphore(8)  # pictures that are drawn or waited for


class Selection(BaseModel):
    """What an address of the page chooses; see `CompareConfig`."""

    run: list[str] = []
    experiment: str = ""
    sweep: str = ""
    where: str = ""
    metric: str = ""
    tags: str = ""
    smooth: str = "0.6"
    x: str = XAxis.step.value
    log: bool = False
    seeds: bool = False

    def compared(self, live: Live) -> Comparison:
        """Return the comparison of the runs that are named, or of those that the settings choose."""
        from trainlab.runs.compare.comparison import NEWEST, CompareConfig, chosen, comparison

        fields = self.model_dump(exclude={"run", "log", "seeds"})
        config = CompareConfig.parse(fields | {"experiment": self.experiment or NEWEST})
        if not self.run:
            return chosen(live.rows(), config)
        return comparison(live.named(self.run), config)

    def address(self, **changed: Any) -> str:
        """Return the selection as an address's query, with some parts of it changed."""
        known = self.model_copy(update=changed).model_dump(mode="json", exclude_defaults=True)
        return urlencode(
            {key: str(each) if isinstance(each, bool) else each for key, each in known.items()},
            True,
            errors="replace",
        )


class Lines(BaseModel):
    """The curves that a page asks for: of runs, each with the line that it belongs to."""

    run: list[str] = []
    line: list[int] = []
    tag: list[str] = []
    x: XAxis = XAxis.step
    smooth: Annotated[float, Field(ge=0, lt=1)] = 0.6


def pictures_of(row: Row) -> dict[str, images.Image]:
    """Return a run's pictures by name; none where its folder can't be read."""

    def found() -> dict[str, images.Image]:
        try:
            return {each.name: each for each in images.found(row.folder)}
        except OSError:
            return {}

    return IMAGES.get(row.folder, [row], found)


def router(board: Board) -> APIRouter:
    """Return the routes of this page."""
    routes = APIRouter()

    @routes.get("/compare", response_class=HTMLResponse)
    def show(request: Request, selection: Annotated[Selection, Query()]) -> HTMLResponse:
        try:
            compared = selection.compared(board.live)
        except UserError as error:
            asked = {"selection": selection, "axes": TITLES, "known": columns.main_metrics(board.live.rows())}
            return board.page(request, "compare.html", 400, compared=None, error=str(error), **asked)
        return board.page(
            request, "compare.html", selection=selection, error="", **_shown(compared, selection)
        )

    @routes.get("/curves.json")
    def points(request: Request, asked: Annotated[Lines, Query()]) -> Response:
        from trainlab.runs.compare.comparison import MOST_CURVES
        from trainlab.runs.compare.panels import drawn

        known = known_by(board.live.rows())
        lines: dict[int, list[Row]] = {}
        for place, label in zip(asked.line or range(len(asked.run)), asked.run, strict=False):
            lines.setdefault(place, []).extend([known[label]] if label in known else [])
        tag, x, smooth = asked.tag, asked.x, asked.smooth
        places, found = layout([*map(str, lines)], tag).places, []
        for number, rows in list(lines.items())[:MOST_CURVES]:
            key = (tuple(row.folder for row in rows), tuple(tag), x, smooth)
            for name, curve in CURVES.get(key, rows, partial(drawn, rows, tag, x, smooth)).items():
                panel, own = places[name]
                found.append({"panel": panel, "line": number + own, **curve})
        body = json.dumps(found, allow_nan=False).encode()
        seen = hashlib.sha256(body).hexdigest()[:16]
        if request.headers.get("x-seen") == seen:
            return Response(status_code=204)
        return Response(body, media_type="application/json", headers={"x-seen": seen})

    @routes.get("/compare/{kind}.{form}")
    def draw(
        kind: Literal["curves", "parallel", "importance"],
        form: Literal["svg", "png", "csv"],
        selection: Annotated[Selection, Query()],
    ) -> Response:
        from trainlab.runs.compare import panels

        compared = selection.compared(board.live)
        key = (kind, form, selection.address())
        make = partial(apart, panels.file, compared, selection.seeds, kind, form, selection.log)
        if not AT_ONCE.acquire(blocking=False):  # else pictures would leave no thread for anything else
            raise UserError("Too many pictures are drawn at once. Ask again in a minute.")
        try:
            content: bytes = DRAWN.get(key, compared.rows, make)
        finally:
            AT_ONCE.release()
        name = f'inline; filename="{kind}.{form}"'
        return Response(content, media_type=KINDS[form], headers={**MARKUP, "content-disposition": name})

    return routes


def _shown(compared: Comparison, selection: Selection) -> dict[str, Any]:
    """Return what the page shows of a comparison."""
    from trainlab.runs.compare import curves, importance, panels, report

    shown = compared.folded if selection.seeds else compared
    lines = panels.lines_of(shown)
    pictures = {printable(row.label): pictures_of(row) for row in compared.drawn}
    every = list(dict.fromkeys(name for own in pictures.values() for name in own))
    data = {
        "run": [printable(row.label) for line in lines for row in line],
        "line": [number for number, line in enumerate(lines) for _ in line],
        "tag": compared.tags,
        "x": selection.x,
        "smooth": selection.smooth,
    }
    return {
        "compared": compared,
        "left_out": shown.left_out(),
        "layout": layout(panels.names_of(lines), compared.tags),
        "data": urlencode(data, True, errors="replace"),
        "links": [printable(line[0].label) if len(line) == 1 else "" for line in lines]
        if len(lines) > 1
        else [],
        "table": display.whole(shown.drawn) if shown.drawn else [],
        "apart": report.as_columns(shown.differences()),
        "reason": importance.missing(compared.comparable, compared.metric),
        "known": dict.fromkeys(
            [
                *columns.main_metrics(compared.rows),
                *sorted({tag for row in compared.rows for tag in row.last}),
            ]
        ),
        "pictures": pictures,
        "titles": curves.legends(compared.drawn),
        "names": every[:MOST_PICTURES],
        "more": len(every[MOST_PICTURES:]),
        "axes": TITLES,
    }
