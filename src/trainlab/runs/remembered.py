"""What event files came to when they were last read: those that have not changed since aren't read again."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel

from trainlab import files, untrusted
from trainlab.run import events

if TYPE_CHECKING:
    from pathlib import Path

    from trainlab.run.events import Outcome

FILE = ".outcomes.json"  # in logs/; whoever deletes it loses time alone
_VERSION = 3  # another one where events are read in another way: the file is then made anew
_LARGEST = 1 << 26  # bytes, of some 30,000 runs
_YOUNG = 2.0  # seconds; a file changed so recently may change again without its time telling


class _Known(BaseModel):
    marks: list[tuple[str, int, int]]  # what changes with the event files: their names, sizes and times
    outcome: events.Outcome


class _Memory(BaseModel):
    """The file, checked: whoever can write into `logs` may have written it."""

    version: int = _VERSION
    outcomes: dict[str, _Known] = {}


class SummaryCache:
    """The outcomes of the folders below `logs`, kept there in a file. A broken one counts as none."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._used = logs, _Memory()
        try:
            self._known = _Memory.model_validate_json(untrusted.content(logs / FILE, _LARGEST))
        except (OSError, ValueError, RecursionError):
            self._known = _Memory()
        if self._known.version != _VERSION:
            self._known = _Memory()

    def of(self, folder: Path) -> Outcome:
        """Return what a folder's event files come to (see `events.outcome`)."""
        name, marks = folder.relative_to(self._logs).as_posix(), _marks(folder)
        known = self._known.outcomes.get(name)
        if known and known.marks == marks:
            self._used.outcomes[name] = known
            return known.outcome
        found = events.outcome(folder)
        young = any(time.time() - changed / 1e9 < _YOUNG for _, _, changed in marks)
        if not found.damaged and marks == _marks(folder) and not young:
            self._used.outcomes[name] = _Known(marks=marks, outcome=found)
        return found

    def save(self) -> None:
        """Keep what was asked for, if it is not what was known before and the folder can be written."""
        if self._used != self._known:
            content = json.dumps(self._used.model_dump()).encode()  # pydantic's has no NaN
            if len(content) <= _LARGEST:
                with suppress(OSError):
                    files.write(self._logs / FILE, content)


def _marks(folder: Path) -> list[tuple[str, int, int]]:
    found = [(path.name, path.lstat()) for path in events.files(folder)]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]
