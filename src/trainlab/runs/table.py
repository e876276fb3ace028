"""All runs under `logs/`, ours and foreign ones: as rows, and as pandas DataFrames."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import folders
from trainlab.errors import UserError
from trainlab.runs import events, lock, record
from trainlab.runs.metrics import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from trainlab.runs.record import Record

UNREADABLE = "unreadable"
UNKNOWN = "unknown"  # event files without a run.json don't say how their run ended
DIED = "the process ended without a word"


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
    record: Record | None = None

    @property
    def label(self) -> str:
        """Return 'experiment/run', which is the folder's path under `logs/`."""
        return f"{self.experiment}/{self.run}".lstrip("/")


def table(logs: Path | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Return one row a run, the newest first.

    Columns: experiment, run, status, started (UTC), seconds, reason, folder, and as many `config.<key>`,
    `best.<tag>` and `last.<tag>` as there are in any run. Runs that can't be read have the status 'unreadable'
    and a reason. Raises UserError when `logs` is no folder, or no run belongs to `experiment`.
    """
    import pandas as pd

    frame = pd.DataFrame([flat(row) for row in rows(logs, experiment)], columns=None)
    frame = frame.reindex(columns=list(dict.fromkeys([*FACTS, *frame.columns])))
    frame["started"] = pd.to_datetime(frame["started"], utc=True)
    return frame


def scalars(run: str | Path) -> pd.DataFrame:
    """Return all points of a run, a folder or whatever `find` understands: tag, step, wall_time, value.

    `wall_time` is in seconds since 1970. Raises UserError for an unknown run, or files that can't be read.
    """
    import pandas as pd

    from trainlab.runs.find import find

    curves = events.read(find(run)).curves
    parts = [
        pd.DataFrame({"tag": tag, "step": curve.steps, "wall_time": curve.wall_times, "value": curve.values})
        for tag, curve in sorted(curves.items())
        if curve.steps
    ]
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=["tag", "step", "wall_time", "value"])
    )


FACTS = ("experiment", "run", "status", "started", "seconds", "reason", "folder")


def flat(row: Row) -> dict[str, Any]:
    """Return a row as one level of columns, as in `table`."""
    facts = {name: getattr(row, name) for name in FACTS} | {"folder": str(row.folder)}
    nested = {"config": row.config, "best": row.best, "last": row.last}
    return facts | {
        f"{group}.{key}": value for group, values in nested.items() for key, value in values.items()
    }


def rows(logs: Path | None = None, experiment: str | None = None) -> list[Row]:
    """Return all runs under `logs`, the newest first, those without a known start last.

    Raises UserError when `logs` is no folder, or no run belongs to `experiment`.
    """
    logs = logs or folders.logs()
    found = [read(folder, logs, reason) for folder, reason in run_folders(logs)]
    if experiment is not None:
        known = sorted({row.experiment for row in found})
        found = [row for row in found if row.experiment == experiment]
        if not found:
            from trainlab.errors import nearest

            raise UserError(
                f"No run of an experiment {experiment!r} in {logs}.{nearest(experiment, known)} "
                f"There: {', '.join(known) or 'none'}."
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
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        if record.FILE in names or any("tfevents" in name for name in names):
            yield Path(parent), None
    for error in barred:
        yield Path(error.filename), f"{error.filename}: {error.strerror}."


def read(folder: Path, logs: Path, reason: str | None = None) -> Row:
    """Return a run's row; a `reason` that is known, or found, why it can't be read makes it 'unreadable'."""
    place = folder.relative_to(logs)
    names = {"folder": folder, "experiment": place.parent.as_posix().lstrip("."), "run": place.name or "."}
    if reason is not None:
        return Row(**names, status=UNREADABLE, reason=reason)
    try:
        if not (folder / record.FILE).exists():
            return _foreign(names, events.read(folder))
        return _ours(names, record.read(folder))
    except UserError as error:
        return Row(**names, status=UNREADABLE, reason=str(error))
    except OSError as error:
        return Row(**names, status=UNREADABLE, reason=f"{error.filename}: {error.strerror}.")


def _ours(names: dict[str, Any], known: Record) -> Row:
    folder: Path = names["folder"]
    status, reason = known.status, known.reason
    alive = status == "running" and lock.alive(folder)
    if status == "running" and not alive:
        status, reason = "interrupted", DIED
    last, best = _values(known.last), _values(known.best)
    seconds, config = known.seconds, known.config
    if (
        known.status == "running" or not last
    ):  # the file may lag behind, or be written by somebody else's writer
        history = events.read(folder)
        last, best = _summary(history, last, best)
        config = config or history.config
        if seconds is None:
            end = datetime.now(UTC).timestamp() if alive else history.ended or known.started.timestamp()
            seconds = max(0.0, end - known.started.timestamp())
    else:
        for path in events.files(folder):
            events.check(path)
    facts = {
        "status": status,
        "reason": reason,
        "started": known.started,
        "seconds": seconds,
        "config": config,
    }
    return Row(**names, **facts, last=last, best=best, metrics=known.metrics, record=known)


def _foreign(names: dict[str, Any], history: events.History) -> Row:
    last, best = _summary(history, {}, {})
    started = seconds = None
    if history.started is not None and history.ended is not None:
        started, seconds = datetime.fromtimestamp(history.started, UTC), history.ended - history.started
    return Row(
        **names, status=UNKNOWN, started=started, seconds=seconds, config=history.config, last=last, best=best
    )


def _values(points: dict[str, record.Point]) -> dict[str, float]:
    return {tag: point.value for tag, point in points.items()}


def _summary(
    history: events.History, last: dict[str, float], best: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return last and best of all curves; tags that only `run.json` knows keep what it says."""
    summary = Summary()
    for tag, curve in history.curves.items():
        for step, value in zip(curve.steps, curve.values, strict=True):
            summary.add(tag, value, step)
    return (
        last | {tag: point["value"] for tag, point in summary.last.items()},
        best | {tag: point["value"] for tag, point in summary.best.items()},
    )
