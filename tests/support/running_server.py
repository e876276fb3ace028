"""A server of bundles in a process of its own, and what is asked of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from project import CHECKOUT
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Answer(NamedTuple):
    """An answer of HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Return the body, as text."""
        return self.body.decode()


class RunningServer:
    """A server in a process of its own, that serves what a folder of bundles says.

    Args:
        models: The folder of bundles.
        port: Where it serves.
        before: What starts it, such as nohup; it has a session of its own without.
        stdin: Its input.
        environment: More than it inherits.
    """

    def __init__(
        self,
        models: Path,
        port: int,
        before: Sequence[str] = (),
        stdin: int | None = None,
        **environment: str,
    ) -> None:
        self.models, self.port = models, port
        self._log = models.parent / f"server-{port}.log"
        known = {"TRAINLAB_MODELS": str(models), "PYTHONPATH": str(CHECKOUT / "src"), "SERVE_TOKEN": ""}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "trainlab.serving.server", "--port", str(port)],
                env={**os.environ, **known, **environment},
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=not before,
            )

    def __enter__(self) -> RunningServer:
        try:
            self.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text()

    def ready(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log
            try:
                return self.ask("/ready").status == 200
            except OSError:
                return False

        until(answers, "a server that answers")

    def ask(
        self,
        path: str,
        asked: Any = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Return the answer to a GET, or to a POST of JSON or of a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            told = dict(headers or {})
            if asked is not None:
                body, told = json.dumps(asked).encode(), {"Content-Type": "application/json", **told}
            connection.request("GET" if body is None else "POST", path, body, told)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        """Return what /ready says."""
        return self.ask("/ready").json

    def load(self) -> dict[str, Any]:
        """Let it load what is chosen by now; return what /ready says then."""
        before = self.state()["loads"]
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.state()["loads"] > before, "a load")
        return self.state()

    def memory(self) -> int:
        """Return the bytes of memory that are its own."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def multipart(name: str, content: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form with a file."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
    return b"".join([*parts, head, content, b"\r\n--edge--\r\n"]), {
        "Content-Type": "multipart/form-data; boundary=edge"
    }
