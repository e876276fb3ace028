"""The rows of all runs as they are now: only what has changed is read again, once for all who look."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.run import events
from trainlab.run.find import run_folders
from trainlab.runs import listing

if TYPE_CHECKING:
    from trainlab.runs.listing import Row

PAUSE = 1.0  # seconds between two looks at the disk, however many look at the page

Marks = tuple[int, tuple[tuple[str, int, int], ...]]


class Live:
    """The runs below a folder. Nothing is read while nobody asks."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._lock = logs, threading.Lock()
        self._known: dict[Path, tuple[Marks | None, Row]] = {}
        self._rows: list[Row] = []
        self._looked = -math.inf

    def rows(self) -> list[Row]:
        """Return all runs, the newest first, as they were at most `PAUSE` seconds ago."""
        with self._lock:
            if time.monotonic() - self._looked > PAUSE:
                self._look()
                self._looked = time.monotonic()
            return self._rows

    def _look(self) -> None:
        outcomes = listing.SummaryCache(self._logs)
        found: dict[Path, tuple[Marks | None, Row]] = {}
        for folder, reason in run_folders(self._logs):
            marks = _marks(folder) if reason is None else None
            known = self._known.get(folder)
            if known and marks is not None and known[0] == marks:
                found[folder] = known
                continue
            row = listing.read(folder, self._logs, reason, outcomes)
            # a running run moves, and may have died; what is damaged may be mended
            rests = row.status not in ("running", listing.UNREADABLE) and not row.damaged
            found[folder] = (marks if rests and marks == _marks(folder) else None, row)
        if not self._known:
            outcomes.save()
        self._known = found
        self._rows = sorted(
            (row for _, row in found.values()),
            key=lambda row: row.started.timestamp() if row.started else -math.inf,
            reverse=True,
        )


def _marks(folder: Path) -> Marks | None:
    """Return what changes with a run's files: its folder's time, since all but curves are replaced whole."""
    try:
        curves = tuple((each.name, *_size(each)) for each in events.files(folder))
        return folder.stat().st_mtime_ns, curves
    except OSError:
        return None


def _size(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns
