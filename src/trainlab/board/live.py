"""The rows of all runs as they are now: only what has changed is read again, once for all who look.

Whether a run has changed, the times and sizes of its folder, its record and its curves tell, since all files
but curves are replaced whole. New runs are searched for when a folder that holds runs has changed.
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.run import events, record
from trainlab.run.find import run_folders
from trainlab.runs import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trainlab.runs.listing import Row

PAUSE = 1.0  # seconds between two looks at the disk, however many look at the page
SEARCH = 10.0  # seconds between two searches for new runs, where no folder tells of any
YOUNG = 2.0  # seconds; what has changed so recently may change again without its time telling
SHARE = 20  # a search, or a long run's curves, are read for a 20th of the time at most

Marks = dict[Path, tuple[int, int]]


@dataclass
class _Known:
    row: Row
    marks: Marks | None  # None: it is read again at the next look
    due: float = 0.0  # monotonic time, before which it isn't read again


class Live:
    """The runs below a folder. Nothing is read while nobody asks."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._lock = logs, threading.Lock()
        self._known: dict[Path, _Known] = {}
        self._folders: dict[Path, str | None] = {}  # with the reason why one can't be read
        self._places: Marks | None = None  # of the folders that hold runs; None: one has just changed
        self._searched, self._next_search = -math.inf, -math.inf
        self._version, self._rows = 0, list[listing.Row]()
        self._looked = -math.inf

    def rows(self) -> list[Row]:
        """Return all runs, the newest first, as they were at most `PAUSE` seconds ago."""
        return self.state()[1]

    def named(self, labels: Iterable[str]) -> list[Row]:
        """Return the runs that have some labels, each once; raise UserError for none, and an unknown one."""
        known, wanted = known_by(self.rows()), list(dict.fromkeys(labels))
        if not wanted:
            raise UserError("Which runs? Choose some first.")
        for label in wanted:
            if label not in known:
                raise UserError(
                    f"There is no run {printable(label[:200])!r} any more: it may be in the trash, or have "
                    "another name by now. Load the page again."
                )
        return [known[label] for label in wanted]

    def state(self) -> tuple[int, list[Row]]:
        """Return a number that grows with each change, and the rows."""
        with self._lock:
            if time.monotonic() - self._looked > PAUSE:
                self._look()
                self._looked = time.monotonic()
            return self._version, self._rows

    def look_again(self) -> None:
        """Have the next answer look at the disk, as after an action of somebody who looks."""
        with self._lock:
            self._looked = self._next_search = -math.inf
            self._places = None

    def _look(self) -> None:
        first = not self._known
        outcomes = listing.SummaryCache(self._logs) if first else None
        now = time.monotonic()
        if now >= self._next_search and (
            self._places is None or now - self._searched > SEARCH or not _holds(self._places)
        ):
            self._search()
        found: dict[Path, _Known] = {}
        for folder, reason in self._folders.items():
            known = self._known.get(folder)
            if known is None or not (reason is None and self._stays(known)):
                if not os.path.lexists(folder):
                    continue
                known = self._read(folder, reason, outcomes, known)
            found[folder] = known
        if outcomes:
            outcomes.save()
        before, self._known = self._rows, found
        rows = sorted(
            (known.row for known in found.values()),
            key=lambda row: row.started.timestamp() if row.started else -math.inf,
            reverse=True,
        )
        if first or list(map(id, rows)) != list(map(id, before)):
            self._version, self._rows = self._version + 1, rows

    def _search(self) -> None:
        start, begun = time.thread_time(), time.time()
        self._folders = dict(run_folders(self._logs))
        places = _marks({self._logs, *(folder.parent for folder in self._folders)})
        self._places = places if _old(places, begun) else None
        self._searched = time.monotonic()
        self._next_search = self._searched + SHARE * (time.thread_time() - start)

    @staticmethod
    def _stays(known: _Known) -> bool:
        """Tell whether a row is still right; a running run's gets its time until now."""
        right = known.marks is not None and _holds(known.marks)
        if known.row.status == "running" and (right or time.monotonic() < known.due):
            row = listing.until_now(known.row)
            known.row = row or known.row
            return row is not None
        return right

    def _read(
        self, folder: Path, reason: str | None, outcomes: listing.SummaryCache | None, known: _Known | None
    ) -> _Known:
        start, begun = time.thread_time(), time.time()
        marks = _of_run(folder)
        row = listing.read(folder, self._logs, reason, outcomes)
        if known and known.row == row:
            row = known.row
        # what is damaged or barred may be mended without a trace in these times
        rests = marks is not None and _old(marks, begun) and row.status != listing.UNREADABLE
        due = time.monotonic() + SHARE * (time.thread_time() - start)
        return _Known(row, marks if rests and not row.damaged else None, due)


def _of_run(folder: Path) -> Marks | None:
    try:
        return _marks([folder, folder / record.FILE, *events.files(folder)])
    except OSError:
        return None


def _marks(paths: Iterable[Path]) -> Marks:
    return {path: _mark(path) for path in paths}


def _mark(path: Path) -> tuple[int, int]:
    """Return a file's size and the time it was last changed in any way; zeros where it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  # half the time of Path.stat, ten thousand times
    except OSError:
        return 0, 0
    return status.st_size, status.st_ctime_ns


def _holds(marks: Marks) -> bool:
    return all(_mark(path) == mark for path, mark in marks.items())


def _old(marks: Marks, begun: float) -> bool:
    return all(changed < (begun - YOUNG) * 1e9 for _, changed in marks.values())


def known_by(rows: Sequence[Row]) -> dict[str, Row]:
    """Return runs by label; by what can be written of it where the folder's name is no text."""
    return {**{printable(row.label): row for row in rows}, **{row.label: row for row in rows}}
