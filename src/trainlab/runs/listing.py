"""Finds all runs under `logs/`, ours and foreign ones, and what is known about each."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import folders
from trainlab.errors import UserError, nearest
from trainlab.runs import death, events, lock, record, remarks, untrusted
from trainlab.runs.interruption import describe
from trainlab.runs.remembered import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainlab.runs.events import Outcome
    from trainlab.runs.record import Record

UNREADABLE = "unreadable"
_LONGEST = 100 * 365 * 86400.0  # seconds of a run
_LEADS_OUT = (
    "{} is a link to {}, out of the folder of runs: not followed. Name that folder by --logs, make the "
    "folder of runs itself a link to it, or move its runs here."
)
UNKNOWN = "unknown"  # event files without a run.json don't say how their run ended


@dataclass(frozen=True)
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
    best: dict[str, float] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)  # the tags that matter most
    reason: str | None = None
    damaged: list[str] = field(default_factory=list)  # a sentence for each event file that is
    record: Record | None = None
    tags: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def label(self) -> str:
        """Return 'experiment/run', which is the folder's path under `logs/`."""
        return f"{self.experiment}/{self.run}".lstrip("/")


def rows(logs: Path | None = None, experiment: str | None = None) -> list[Row]:
    """Return all runs under `logs`, the newest first, those without a known start last.

    Raises UserError when `logs` is no folder, or no run belongs to `experiment`.
    """
    logs = logs or folders.logs()
    outcomes = Outcomes(logs)
    found = [read(folder, logs, reason, outcomes) for folder, reason in run_folders(logs)]
    outcomes.save()
    if experiment is not None:
        known = sorted({row.experiment for row in found})
        found = [row for row in found if row.experiment == experiment]
        if not found:
            raise UserError(
                f"No run of an experiment {experiment!r} in {logs}.{nearest(experiment, known)} "
                f"There: {', '.join(known) or 'none'}."
            )
    return sorted(found, key=lambda row: row.started.timestamp() if row.started else -math.inf, reverse=True)


def run_folders(logs: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield every folder with a `run.json` or event files, and, with the reason, those that can't be listed.

    `logs` may be a link, and links in it may lead to other folders in it; one that leads out of it is not
    followed: somebody else's code may have made it. Raises UserError when `logs` is no folder.
    """
    if not logs.is_dir():
        raise UserError(f"{logs} is no folder. Runs are looked for there; name another with --logs DIR.")
    barred: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting, top = [logs], logs.resolve()
    while waiting:  # not by recursion, which a folder a thousand levels deep would end
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((status.st_dev, status.st_ino))
            below, names, leading_out = _looked_into(folder, top)
        except OSError as error:
            barred.append((folder, f"{folder}: {error.strerror}."))
            continue
        waiting += reversed(below)
        barred += leading_out
        if record.FILE in names or any(events.MARK in name for name in names):
            yield folder, None
    yield from barred


def _looked_into(folder: Path, top: Path) -> tuple[list[Path], list[str], list[tuple[Path, str]]]:
    """Return the folders in a folder, the names of all else, and links out of `top` with a sentence each."""
    below, names, leading_out = [], [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = folder / entry.name
            if not untrusted.is_folder(entry):
                names.append(entry.name)
            elif not entry.name.startswith("."):
                if entry.is_symlink() and not (target := path.resolve()).is_relative_to(top):
                    leading_out.append((path, _LEADS_OUT.format(path, target)))
                else:
                    below.append(path)
    return below, names, leading_out


def read(folder: Path, logs: Path, reason: str | None = None, outcomes: Outcomes | None = None) -> Row:
    """Return a run's row; a `reason` that is known, or found, why it can't be read makes it 'unreadable'."""
    outcome = outcomes.of if outcomes else events.outcome
    place = folder.relative_to(logs)
    row = Row(folder, place.parent.as_posix().lstrip("."), place.name or ".", UNREADABLE, reason=reason)
    if reason is not None:
        return row
    try:
        if not (folder / record.FILE).exists():
            known = remarks.read(folder)
            return _foreign(replace(row, tags=known.tags, note=known.note), outcome)
        return _ours(row, record.read(folder), outcome)
    except UserError as error:
        return replace(row, reason=str(error))
    except OSError as error:
        return replace(row, reason=f"{error.filename}: {error.strerror}.")
    except Exception as error:  # well-formed events can hold anything: no one run may hide all others
        return replace(row, reason=f"{folder}: {describe(error)}.")


def _foreign(row: Row, outcome: Callable[[Path], Outcome]) -> Row:
    """Complete the row of event files alone."""
    found = outcome(row.folder)
    if found.damaged and found.started is None:
        return replace(row, reason=" ".join(found.damaged))
    row = replace(row, status=UNKNOWN, config=found.config, last=found.last, best=found.best)
    row = _damaged(row, found.damaged)
    if found.started is None or found.ended is None:
        return row
    started = datetime.fromtimestamp(found.started, UTC)
    return replace(row, started=started, seconds=max(0.0, found.ended - found.started))


def _ours(row: Row, known: Record, outcome: Callable[[Path], Outcome]) -> Row:
    """Complete the row of a run with a record; a start or a duration that can't be is left out."""
    row = replace(row, started=_possible(known.started), config=known.config, metrics=known.metrics)
    row = replace(row, record=known, tags=known.tags, note=known.note)
    last, best = _values(known.last), _values(known.best)
    if known.status != "running":
        row = replace(row, status=known.status, reason=known.reason, seconds=_duration(known.seconds))
        if last:
            return _damaged(replace(row, last=last, best=best), events.damaged(row.folder))
    # a running run's record lags behind its events, and that of somebody else's writer knows none of them
    found = outcome(row.folder)
    if known.status == "running":
        row = _unfinished(row, known, found.ended)
    config = row.config or found.config
    row = replace(row, config=config, last=last | found.last, best=best | found.best)
    return _damaged(row, found.damaged)


def _possible(started: datetime) -> datetime | None:
    """Return a time at which a run can have started, by clocks that differ by a day; None for any other."""
    earliest, latest = datetime(1970, 1, 2, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    return started if earliest <= started <= latest else None


def _duration(seconds: float | None) -> float | None:
    """Return a time that a run can have taken, None for any other."""
    return None if seconds is None or not 0 <= seconds <= _LONGEST else seconds


def _unfinished(row: Row, known: Record, last_event: float | None) -> Row:
    """Tell a run at work from one that died, which ended with its last event or its record's last change."""
    if lock.alive(row.folder):
        now = datetime.now(UTC).timestamp()
        seconds = _duration(known.seconds_until(now))
        return replace(row, status="running", reason=known.reason, seconds=seconds)
    end = last_event or (row.folder / record.FILE).stat().st_mtime  # copying a folder changes the latter
    seconds = _duration(known.seconds_until(end))
    return replace(row, status="interrupted", reason=death.cause(known), seconds=seconds)


def _damaged(row: Row, damaged: list[str]) -> Row:
    """Name the files that could not be read, or not to their ends, beside what the others hold."""
    if not damaged:
        return row
    return replace(row, damaged=damaged, reason=" ".join(filter(None, [row.reason, *damaged])))


def _values(points: dict[str, record.Point]) -> dict[str, float]:
    return {tag: point.value for tag, point in points.items()}
