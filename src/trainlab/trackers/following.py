"""All trackers of one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainlab import trackers
from trainlab.errors import UserError
from trainlab.secrets import of_tag
from trainlab.trackers import Point, Subject
from trainlab.trackers.queue import Courier

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainlab.run.events import Curve
    from trainlab.run.record import Status

END_SECONDS = 20.0  # that the end of a run waits for its trackers, and
STOP_SECONDS = 3.0  # of an interrupted run: a container that is stopped has ten for everything


class Following:
    """Hands what a run logs to each of its trackers; without any, does nothing."""

    def __init__(self) -> None:
        self._couriers: list[Courier] = []

    def start(self, names: list[str], folder: Path, config: dict[str, Any], ids: Mapping[str, str]) -> None:
        """Let trackers follow the run in `folder`; `ids` are what they called it before."""
        for name in names:
            place = (folder.parents[1], folder, folder.parent.name, folder.name)
            self._couriers.append(Courier(name, Subject(*place, config, ids.get(name, ""))))

    @property
    def ids(self) -> dict[str, str]:
        """What each tracker calls the run, as far as it has said so."""
        return {courier.name: courier.id for courier in self._couriers if courier.id}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand on numbers logged now."""
        now = time.time()
        for courier in self._couriers:
            courier.log(Point(step, now, _shown(tag), float(value)) for tag, value in metrics.items())

    def catch_up(self, curves: Mapping[str, Curve], last: Mapping[str, Mapping[str, float]]) -> None:
        """Hand on the points behind the last known one of each tag: another process has logged them."""
        found = [
            Point(step, when, _shown(tag), value)
            for tag, curve in curves.items()
            for step, when, value in zip(curve.steps, curve.wall_times, curve.values, strict=True)
            if tag not in last or step > last[tag]["step"]
        ]
        found.sort(key=lambda point: point.time)
        for courier in self._couriers:
            courier.log(found)

    def rewind(self, step: int) -> None:
        """Let the trackers forget what stands at `step` and later."""
        for courier in self._couriers:
            courier.rewind(step)

    def finish(self, status: Status, reason: str | None) -> None:
        """Tell how the run ended, and give the trackers some seconds together."""
        for courier in self._couriers:
            courier.finish(status, reason)
        until = time.monotonic() + (STOP_SECONDS if status == "interrupted" else END_SECONDS)
        for courier in self._couriers:
            courier.wait(until)


def _shown(tag: str) -> str:
    return of_tag(tag)


def chosen(setting: str) -> list[str]:
    """Return the trackers that a setting names; raise UserError where one is unknown or not installed."""
    try:
        names = trackers.parse(setting or trackers.ALWAYS)
    except ValueError as error:
        raise UserError(f"tracker={setting}: {error}") from None
    trackers.require(names)
    return names
