"""Commands of ours in the background, which outlive whoever has started them, and what they print.

It goes to `NAME.log` in a folder. The command holds its lock while it lives; the last line says how it ended.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING

from trainlab import untrusted
from trainlab.cleaning import lines
from trainlab.errors import UserError
from trainlab.files import telling
from trainlab.run import lock
from trainlab.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LARGEST = 1 << 22  # bytes of what is printed that are shown
DONE = "[done]"
_CALL = f"""
import sys
from trainlab.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print("{DONE}" if code == 0 else f"[not done: exit code {{code}}]", flush=True)
sys.exit(code)
"""


@dataclass(frozen=True)
class Job:
    """A command that was started: whether it still runs, or what came of it, and what it has printed."""

    name: str
    state: str
    output: str


def named(what: str) -> str:
    """Return the name of a new job."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{what}-{token_hex(2)}"


def begin(place: Path, name: str, words: Sequence[str]) -> None:
    """Start `trainlab` with these words as a job; raise UserError where the disk refuses."""
    with telling(place):
        place.mkdir(parents=True, exist_ok=True)
        with untrusted.appended(place / f"{name}.log") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # held by whoever has inherited it
            subprocess.Popen(
                [sys.executable, "-c", _CALL, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if key != "JUPYTER_TOKEN"},
            )


def names(place: Path) -> list[str]:
    """Return the names of all jobs, the newest first."""
    return sorted((path.stem for path in place.glob("*.log")), reverse=True)


def read(place: Path, name: str) -> Job:
    """Return a job; raise UserError where there is none of this name, or it can't be read."""
    if name not in names(place):
        raise UserError("There is no such job.")
    runs = lock.taken(place, f"{name}.log")  # before reading: its last line comes after its last word
    with telling(place):
        text = untrusted.content(place / f"{name}.log", LARGEST).decode(errors="replace").rstrip()
    shown = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    ended = "done" if text.endswith(DONE) else "failed"
    return Job(name, "running" if runs else ended, without_secrets(lines(shown)))
