"""A browser of the board, without one: it keeps the cookie and sends the token of forms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient

from trainlab.board.app import application
from trainlab.board.pages import XSRF

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from httpx import Response

HTMX = {"hx-request": "true"}
# Saves at each step, and waits at the second one where it is told to; `go` beside it ends the waiting
SCRIPT = """
import pathlib, time
from typing import Literal
from pydantic import Field
import trainlab
from trainlab.config import Config
from trainlab.run import checkpoint

class Settings(Config):
    \"\"\"A line: `slope` is how steep it is.\"\"\"

    slope: float = Field(3.0, gt=0)
    steps: int = Field(2, ge=1, le=9)
    shape: Literal["line", "curve"] = "line"
    hold: bool = False

settings = Settings.from_command_line()
with trainlab.Run("tiny", settings, monitor=False) as run:
    first = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    if first:
        run.rewind(first, run.checkpoint)
    for step in range(first, settings.steps):
        run.log({"val/loss": settings.slope / (step + 1)}, step)
        checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
        while settings.hold and not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.02)
"""


class Browser:
    """Looks at the pages over a folder of runs, and sends their forms."""

    def __init__(self, logs: Path, before: Callable[[Any], Any] = lambda app: app) -> None:
        self.client = TestClient(
            before(application(logs)), base_url="http://127.0.0.1", follow_redirects=False
        )
        self.client.get("/trash")
        self.token = self.client.cookies[XSRF]

    def get(self, path: str, code: int = 200, **headers: str) -> str:
        """Return a page."""
        answer = self.client.get(path, headers=headers)
        assert answer.status_code == code, answer.text
        return answer.text

    def send(self, action: str, headers: dict[str, str] | None = None, **fields: Any) -> Response:
        """Send a form; `of_` in a field's name stands for `set.`."""
        named = {name.replace("of_", "set."): value for name, value in fields.items()}
        return self.client.post(f"/do/{action}", data={XSRF: self.token, **named}, headers=headers)

    def told(self, action: str, **fields: Any) -> str:
        """Send a form without JavaScript; return what the page that it leads to says."""
        answer = self.send(action, **fields)
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["location"])

    def refused(self, action: str, **fields: Any) -> str:
        """Send a form by htmx that is refused; return the sentence."""
        answer = self.send(action, HTMX, **fields)
        assert answer.status_code == 400, answer.text
        return answer.text


def marked(page: str) -> dict[str, str]:
    """Return the sentences beside the fields of a form, by the fields."""
    found = re.findall(r'<p class="wrong" id="fault\.([^"]+)">([^<]*)</p>', page)
    return {name: said.replace("&#39;", "'") for name, said in found}
