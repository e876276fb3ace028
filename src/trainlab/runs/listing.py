"""Finds all runs under `logs/`, ours and foreign ones, and what is known about each."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import folders
from trainlab.errors import UserError, nearest, some
from trainlab.runs import death, events, lock, record, remarks
from trainlab.runs.interruption import describe
from trainlab.runs.remembered import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainlab.runs.events import Outcome
    from trainlab.runs.record import Record

# hidden folders that hold no runs: of deleted runs, of W&B, of caches; any other one is a user's own
PASSED = (".trash", ".wandb", ".cache", ".ipynb_checkpoints", ".git", ".venv")
UNREADABLE = "unreadable"
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
    def looks(self) -> bool:
        """Return whether this only looked at something: the table and the report pass it."""
        return self.record is not None and self.record.looks is True

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
                f"There: {some(known)}."
            )
    return sorted(found, key=lambda row: row.started.timestamp() if row.started else -math.inf, reverse=True)


def run_folders(logs: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield every folder with a `run.json` or event files, and, with the reason, those that can't be listed.

    Links are followed, as TensorBoard does. Raises UserError when `logs` is no folder.
    """
    if not logs.is_dir():
        raise UserError(f"{logs} is no folder. Runs are looked for there; name another with --logs DIR.")
    barred: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for parent, below, names in os.walk(logs, onerror=barred.append, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if name not in PASSED)
        if record.FILE in names or any("tfevents" in name for name in names):
            yield Path(parent), None
    for error in barred:
        yield Path(error.filename), f"{error.filename}: {error.strerror}."


def read(folder: Path, logs: Path, reason: str | None = None, outcomes: Outcomes | None = None) -> Row:
    """Return a run's row; a `reason` that is known, or found, why it can't be read makes it 'unreadable'."""
    outcome = outcomes.of if outcomes else events.outcome
    place = folder.relative_to(logs)
    experiment = "" if place.parent == Path() else place.parent.as_posix()
    row = Row(folder, experiment, place.name or ".", UNREADABLE, reason=reason)
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
    """Complete the row of a run with a record."""
    row = replace(row, started=known.started, config=known.config, metrics=known.metrics, record=known)
    row = replace(row, tags=known.tags, note=known.note)
    last, best = _values(known.last), _values(known.best)
    if known.status != "running":
        row = replace(row, status=known.status, reason=known.reason, seconds=known.seconds)
        if last:
            return _damaged(replace(row, last=last, best=best), events.damaged(row.folder))
    # a running run's record lags behind its events, and that of somebody else's writer knows none of them
    found = outcome(row.folder)
    if known.status == "running":
        row = _unfinished(row, known, found.ended)
    config = row.config or found.config
    row = replace(row, config=config, last=last | found.last, best=best | found.best)
    return _damaged(row, found.damaged)


def _unfinished(row: Row, known: Record, last_event: float | None) -> Row:
    """Tell a run at work from one that died, which ended with its last event or its record's last change."""
    if lock.alive(row.folder):
        now = datetime.now(UTC).timestamp()
        return replace(row, status="running", reason=known.reason, seconds=known.seconds_until(now))
    end = last_event or (row.folder / record.FILE).stat().st_mtime  # copying a folder changes the latter
    return replace(row, status="interrupted", reason=death.cause(known), seconds=known.seconds_until(end))


def _damaged(row: Row, damaged: list[str]) -> Row:
    """Name the files that could not be read, or not to their ends, beside what the others hold."""
    if not damaged:
        return row
    return replace(row, damaged=damaged, reason=" ".join(filter(None, [row.reason, *damaged])))


def _values(points: dict[str, record.Point]) -> dict[str, float]:
    return {tag: point.value for tag, point in points.items()}
