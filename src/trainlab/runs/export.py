"""A recorded run, sent to a tracker whole: one that was not followed there, or while there was no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.run import events
from trainlab.secrets import without_secrets
from trainlab.trackers import ALWAYS, NAMES, Point, Subject, make, require

if TYPE_CHECKING:
    from trainlab.runs.listing import Row

AT_ONCE = 10_000  # points


def export(row: Row, name: str) -> int:
    """Send a run's settings, points and status to a tracker, as a new run there; return how many points.

    Raises UserError for an unknown tracker, one whose package is missing, a running run, or what the tracker
    itself objects to.
    """
    from trainlab.run.gathering import plausible

    known = [each for each in NAMES if each != ALWAYS]
    if name not in known:
        raise UserError(f"--to {name}: expected {', '.join(known)}.")
    require([name])
    if row.status == "running":
        raise UserError(f"{row.label} is still running. Export it when it has ended.")
    if name == "wandb":
        from trainlab.trackers.wandb import mode

        if mode() == "offline":
            raise UserError(
                "wandb: no key is set, its server does not answer, or WANDB_MODE is offline, so nothing "
                "would be sent. Set WANDB_API_KEY, and WANDB_BASE_URL for a server of your own."
            )
    # a tracker needs a time for every point: where there is none, the run's start or 1970
    start = row.started.timestamp() if row.started else 0.0
    points = [
        Point(step, time if good else start, tag, value)
        for tag, curve in events.read(row.folder).curves.items()
        for step, time, value, good in zip(
            curve.steps, curve.wall_times, curve.values, plausible(curve.wall_times).tolist(), strict=True
        )
    ]
    points.sort(key=lambda point: (point.time, point.step))
    depth = len(Path(row.label).parts)
    logs = row.folder.parents[depth - 1] if depth else row.folder
    # event files of others don't say how their run ended
    status = row.status if row.status in ("failed", "interrupted") else "finished"
    tracker = make(name)
    try:
        tracker.start(Subject(logs, row.folder, row.experiment or row.run, row.run, row.config))
        tracker.rewind(0)  # a table that is there already is written anew
        for first in range(0, len(points), AT_ONCE):
            tracker.log(points[first : first + AT_ONCE])
        tracker.finish(status, row.reason)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(without_secrets(f"{type(error).__name__}: {error}").split())
        raise UserError(f"{name} has not taken {row.run}: {reason[:500]}") from None
    return len(points)
