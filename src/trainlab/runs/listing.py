"""Finds all runs under `logs/`, ours and foreign ones, and what is known about each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.errors import UserError, nearest, some
from trainlab.run import death, events, lock, metrics, record, remarks
from trainlab.run.find import run_folders
from trainlab.run.signals import describe
from trainlab.runs.remembered import SummaryCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainlab.run.events import Outcome
    from trainlab.run.metrics import Direction
    from trainlab.run.record import Record

UNREADABLE = "unreadable"
_LONGEST = 100 * 365 * 86400.0  # seconds of a run
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
    best: dict[str, float] = field(default_factory=dict)  # of the metrics whose direction is known
    best_steps: dict[str, int] = field(default_factory=dict)
    directions: dict[str, Direction] = field(default_factory=dict)  # those that were said
    metrics: list[str] = field(default_factory=list)  # the tags that matter most
    reason: str | None = None
    damaged: list[str] = field(default_factory=list)  # a sentence for each event file that is
    record: Record | None = None
    tags: list[str] = field(default_factory=list)
    note: str = ""

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

    `directions` say which way metrics improve, whatever the runs themselves have said.
    Raises UserError when `logs` is no folder, or no run belongs to `experiment`.
    """
    logs = logs or paths.logs()
    outcomes = SummaryCache(logs)
    found = [read(folder, logs, reason, outcomes, directions) for folder, reason in run_folders(logs)]
    outcomes.save()
    if experiment is not None:
        known = sorted({row.experiment for row in found})
        found = [row for row in found if row.experiment == experiment]
        if not found:
            raise UserError(
                f"No run of an experiment {experiment!r} in {logs}.{nearest(experiment, known)} "
                f"There: {some(known)}."
            )
    return sorted(found, key=lambda row: row.started.timestamp() if row.started else -math.inf, reverse=True)


def read(
    folder: Path,
    logs: Path,
    reason: str | None = None,
    outcomes: SummaryCache | None = None,
    directions: Mapping[str, Direction] | None = None,
) -> Row:
    """Return a run's row; a `reason` that is known, or found, why it can't be read makes it 'unreadable'."""
    outcome = outcomes.of if outcomes else events.outcome
    place = folder.relative_to(logs)
    experiment = "" if place.parent == Path() else place.parent.as_posix()
    row = Row(folder, experiment, place.name or ".", UNREADABLE, reason=reason)
    row = replace(row, directions=dict(directions or {}))
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
    if found.damaged and not found.count:
        return replace(row, reason=" ".join(found.damaged))
    row = _damaged(_with_values(replace(row, status=UNKNOWN, config=found.config), found), found.damaged)
    if found.started is None:
        return row
    seconds = max(0.0, found.ended - found.started) if found.ended is not None else None
    return replace(row, started=datetime.fromtimestamp(found.started, UTC), seconds=seconds)


def _ours(row: Row, known: Record, outcome: Callable[[Path], Outcome]) -> Row:
    """Complete the row of a run with a record; a start or a duration that can't be is left out."""
    row = replace(row, started=_possible(known.started), config=known.config, metrics=known.metrics)
    row = replace(row, record=known, tags=known.tags, note=known.note)
    row = replace(row, directions=known.directions | row.directions)
    row = _with_recorded(row, known)
    if known.status != "running":
        row = replace(row, status=known.status, reason=known.reason, seconds=_duration(known.seconds))
        if known.last and all(known.directions.get(tag) == _direction(row, tag) for tag in known.last):
            return _damaged(row, events.damaged(row.folder))
    # a running run's record lags behind its events, and that of somebody else's writer knows none of them
    found = outcome(row.folder)
    if known.status == "running":
        row = _unfinished(row, known, found.ended)
    row = _with_values(replace(row, config=row.config or found.config), found)
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


def _with_recorded(row: Row, known: Record) -> Row:
    """Complete a row by its record's values, but for a best one that was chosen by another direction."""
    best = {tag: point for tag, point in known.best.items() if _chosen_so(known, tag, _direction(row, tag))}
    return replace(row, last=_values(known.last), best=_values(best), best_steps=_steps(best))


def _chosen_so(known: Record, tag: str, direction: Direction | None) -> bool:
    """Tell whether a record's best value is the best by a direction.

    Older records don't name theirs, and were made by a guess: it was another one where the last is better.
    """
    if direction is None or tag in known.directions:
        return direction is not None and known.directions[tag] == direction
    best, last = known.best[tag].value, known.last[tag].value if tag in known.last else math.nan
    return not (last < best if direction == "min" else last > best)


def _with_values(row: Row, found: Outcome) -> Row:
    """Complete a row by the values of its event files."""
    extremes = {"min": found.lowest, "max": found.highest}
    known = {tag: direction for tag in found.lowest if (direction := _direction(row, tag))}
    best = {tag: extremes[direction][tag] for tag, direction in known.items()}
    return replace(
        row,
        last=row.last | found.last,
        best=row.best | {tag: value for tag, (value, _) in best.items()},
        best_steps=row.best_steps | {tag: int(step) for tag, (_, step) in best.items()},
    )


def _direction(row: Row, tag: str) -> Direction | None:
    return row.directions.get(tag) or metrics.well_known(tag)


def _values(points: dict[str, record.Point]) -> dict[str, float]:
    return {tag: point.value for tag, point in points.items()}


def _steps(points: dict[str, record.Point]) -> dict[str, int]:
    return {tag: point.step for tag, point in points.items()}
