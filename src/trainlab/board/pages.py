"""What all pages share: templates, static files, the cookie of forms.

Every text of a run is escaped and made printable: a name is never markup.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from trainlab.board.live import Live
from trainlab.cleaning import lines, printable
from trainlab.run import remarks
from trainlab.runs import display

if TYPE_CHECKING:
    from jinja2 import Environment


XSRF = "_xsrf"  # the cookie, Jupyter's own where it stands before us, and the field of each form
FORM: Any = {"max_files": 0, "max_fields": 1000, "max_part_size": 1 << 16}


@dataclass(frozen=True)
class Board:
    """What each page is made of: the folder of runs, its rows as they are now, and templates."""

    logs: Path
    live: Live

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; `values` are what its template names. Sets the cookie of forms."""
        known = request.cookies.get(XSRF, "")
        token = known or secrets.token_urlsafe(24)
        root = request.scope.get("app_root_path", request.scope.get("root_path", ""))  # also of no such file
        known_to_all = {"root": root, "xsrf": token, "at": request.url.path}
        html = _environment().get_template(template).render(known_to_all | values)
        response = HTMLResponse(html.encode(errors="replace"), status)  # a note may hold what is no text
        if not known:
            response.set_cookie(XSRF, token, path=f"{root}/", httponly=True, samesite="strict")
        return response

    def fragment(self, request: Request, template: str, **values: Any) -> Response:
        """Return a part of a page, or 204 where the browser shows it already (see static/board.js)."""
        response = self.page(request, template, **values)
        seen = hashlib.sha256(response.body).hexdigest()[:16]
        if request.headers.get("x-seen") == seen:
            return Response(status_code=204)
        response.headers["x-seen"] = seen
        return response


def query(request: Request, **changed: str | None) -> str:
    """Return a page's query with some of its parts changed, or left out where None."""
    kept: Mapping[str, str] = {
        **dict(request.query_params),
        **{name: value or "" for name, value in changed.items()},
    }
    return urlencode({name: value for name, value in kept.items() if value})


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("trainlab.board"),
        undefined=StrictUndefined,
        auto_reload=False,
    )
    made.filters |= {
        "lines": lines,
        "printable": printable,
        "short": display.short,
        "duration": display.duration,
        "age": display.age,
    }
    made.globals["mark"] = remarks.mark
    return made
