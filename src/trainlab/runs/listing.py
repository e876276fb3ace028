"""Finds all runs under `logs/`, ours and foreign ones, and what is known about each."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from trainlab import files, paths, untrusted
from trainlab.errors import UserError, nearest, some
from trainlab.run import events, lock, metrics, record, remarks
from trainlab.run.find import run_folders
from trainlab.run.signals import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from trainlab.run.events import Outcome
    from trainlab.run.metrics import Direction
    from trainlab.run.record import Record


UNREADABLE = "unreadable"
_LONGEST = 100 * 365 * 86400.0  # seconds of a run
UNKNOWN = "unknown"  # event files without a run.json don't say how their run ended


@dataclass
class Row:
    """A run as the table shows it; metrics map a tag to its value."""

    folder: Path
    experiment: str
    run: str
    status: str
    started: datetime | None = None
    seconds: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)  # of the metrics whose direction is known
    best_steps: dict[str, int] = field(default_factory=dict)
    directions: dict[str, Direction] = field(default_factory=dict)  # what its code has given
    metrics: list[str] = field(default_factory=list)  # the tags that matter most
    reason: str | None = None
    damaged: list[str] = field(default_factory=list)  # a sentence for each event file that is
    record: Record | None = None
    tags: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def sweep(self) -> str | None:
        """Return the name of the sweep that this is a trial of."""
        return self.record.sweep.name if self.record and self.record.sweep else None

    @property
    def trial(self) -> int | None:
        """Return the number of its trial in the sweep; several seeds of one setting have the same."""
        return self.record.sweep.trial if self.record and self.record.sweep else None

    @property
    def looks(self) -> bool:
        """Return whether this only looked at something: the table and the report pass it."""
        return self.record is not None and self.record.looks is True

    @property
    def label(self) -> str:
        """Return 'experiment/run', which is the folder's path under `logs/`."""
        return f"{self.experiment}/{self.run}".lstrip("/")


def rows(
    logs: Path | None = None,
    experiment: str | None = None,
    directions: Mapping[str, Direction] | None = None,
) -> list[Row]:
    """Return all runs under `logs`, the newest first, those without a known start last.

    `directions` say which way metrics improve, whatever the runs themselves give.
    Raises UserError when `logs` is no folder, or no run belongs to `experiment`.
    """
    logs = logs or paths.logs()
    outcomes = SummaryCache(logs)
    found = [read(folder, logs, reason, outcomes, directions) for folder, reason in run_folders(logs)]
    outcomes.save()
    if experiment is not None:
        found = of_experiment(found, experiment)
    return sorted(found, key=lambda row: row.started.timestamp() if row.started else -math.inf, reverse=True)


def of_experiment(found: Iterable[Row], experiment: str) -> list[Row]:
    """Return an experiment's runs; raise UserError with the nearest name where there is none."""
    rows = list(found)
    known = sorted({row.experiment for row in rows})
    if experiment not in known:
        near = nearest(experiment, known)
        raise UserError(f"No run of an experiment {experiment!r} here.{near} There: {some(known)}.")
    return [row for row in rows if row.experiment == experiment]


def read(
    folder: Path,
    logs: Path,
    reason: str | None = None,
    outcomes: SummaryCache | None = None,
    directions: Mapping[str, Direction] | None = None,
) -> Row:
    """Return a run's row; a `reason` that is known, or found, why it can't be read makes it 'unreadable'."""
    place = folder.relative_to(logs)
    experiment = "" if place.parent == Path() else place.parent.as_posix()
    row = Row(
        folder, experiment, place.name or ".", UNREADABLE, reason=reason, directions={**(directions or {})}
    )
    if reason is not None:
        return row
    try:
        return _read(replace(row, best={}, best_steps={}), outcomes.of if outcomes else events.outcome)
    except UserError as error:
        return replace(row, reason=str(error))
    except OSError as error:
        return replace(row, reason=f"{error.filename}: {error.strerror}.")
    except Exception as error:  # well-formed events can hold anything: no one run may hide all others
        return replace(row, reason=f"{folder}: {describe(error)}.")


def until_now(row: Row) -> Row | None:
    """Return the row of a running run with its time until now; None where its process has ended."""
    if row.record is None or not lock.alive(row.folder):
        return None
    return replace(row, seconds=row.record.seconds_until(datetime.now(UTC).timestamp()))


def _read(row: Row, outcome: Callable[[Path], Outcome]) -> Row:
    """Fill a row from the run's record and, where that doesn't say all, from its event files."""
    if (row.folder / record.FILE).exists():
        found = _add_record(row, record.read(row.folder), outcome)
    else:
        known, found = remarks.read(row.folder), outcome(row.folder)
        row.tags, row.note = known.tags, known.note
        if not found.count and found.damaged:
            row.reason = " ".join(found.damaged)
            return row
        row.status = UNKNOWN
        if found.started is not None:
            row.started = datetime.fromtimestamp(found.started, UTC)
            row.seconds = None if found.ended is None else max(0.0, found.ended - found.started)
    row.damaged = events.damaged(row.folder) if found is None else found.damaged
    row.reason = " ".join(filter(None, [row.reason, *row.damaged])) or None
    if found is not None:
        row.config = row.config or found.config
        row.last = row.last | found.last
        for tag in found.lowest:
            if direction := _direction(row, tag):
                best, step = (found.lowest if direction == "min" else found.highest)[tag]
                row.best[tag], row.best_steps[tag] = best, int(step)
    return row


def _add_record(row: Row, known: Record, outcome: Callable[[Path], Outcome]) -> Outcome | None:
    """Fill a row from the run's record; return what its events come to, None where the record says all.

    A start or a duration that can't be is left out, and so is a best value chosen by another direction.
    """
    earliest, latest = datetime(1970, 1, 2, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    row.started = known.started if earliest <= known.started <= latest else None
    row.record, row.config, row.metrics = known, known.config, known.metrics
    row.tags, row.note = known.tags, known.note
    row.directions = known.directions | row.directions
    row.last = {tag: point.value for tag, point in known.last.items()}
    for tag, point in known.best.items():
        direction, last = _direction(row, tag), row.last.get(tag, math.nan)
        # older records don't name theirs, and were made by a guess: another one where the last is better
        wrong = last < point.value if direction == "min" else last > point.value
        if direction and (known.directions[tag] == direction if tag in known.directions else not wrong):
            row.best[tag], row.best_steps[tag] = point.value, point.step
    row.status, row.reason, seconds = known.status, known.reason, known.seconds
    same = known.last and all(known.directions.get(tag) == _direction(row, tag) for tag in known.last)
    # a running run's record lags behind its events, and that of somebody else's writer knows none of them
    found = None if known.status != "running" and same else outcome(row.folder)
    if known.status == "running" and lock.alive(row.folder):
        seconds = known.seconds_until(datetime.now(UTC).timestamp())
    elif known.status == "running":  # it died, with its last event or its record's last change
        row.status, row.reason = "interrupted", record.crash_reason(known.home, known.oom_kills)
        last_event = found.ended if found else None
        # copying a folder changes the time of its files
        seconds = known.seconds_until(last_event or (row.folder / record.FILE).stat().st_mtime)
    row.seconds = seconds if seconds is not None and 0 <= seconds <= _LONGEST else None
    return found


def _direction(row: Row, tag: str) -> Direction | None:
    return row.directions.get(tag) or metrics.well_known(tag)


FILE = ".outcomes.json"  # in logs/; whoever deletes it loses time alone
_LARGEST = 1 << 26  # bytes, of some 30,000 runs
_YOUNG = 2.0  # seconds; a file changed so recently may change again without its time telling


class _Known(BaseModel):
    marks: list[tuple[str, int, int]]  # what changes with the event files: their names, sizes and times
    outcome: events.Outcome


class _Memory(BaseModel):
    """The file, checked: whoever can write into `logs` may have written it."""

    version: Literal[3] = 3  # another one where events are read in another way: the file is then made anew
    outcomes: dict[str, _Known] = {}


class SummaryCache:
    """The outcomes of the folders below `logs`, kept there in a file. A broken one counts as none."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._used, self._known = logs, _Memory(), _Memory()
        with suppress(OSError, ValueError, RecursionError):
            self._known = _Memory.model_validate_json(untrusted.content(logs / FILE, _LARGEST))

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
        content = json.dumps(self._used.model_dump()).encode()  # pydantic's has no NaN
        if self._used != self._known and len(content) <= _LARGEST:
            with suppress(OSError):
                files.write(self._logs / FILE, content)


def _marks(folder: Path) -> list[tuple[str, int, int]]:
    found = [(path.name, path.lstat()) for path in events.files(folder)]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]
