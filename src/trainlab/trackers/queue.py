"""Carries what a run logs to its trackers, each on its own thread: one that fails or hangs stops nothing."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from itertools import groupby
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

from trainlab.cleaning import printable
from trainlab.secrets import of_tag, without_secrets
from trainlab.trackers import Point, Subject, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from trainlab.trackers import Tracker

MOST = 100_000  # things that wait for a slow tracker, 20 MB; more are dropped
AT_ONCE = 1_000  # points that a tracker is handed together
END_SECONDS = 20.0  # that the end of a run waits for its trackers, and
STOP_SECONDS = 3.0  # of an interrupted run: a container that is stopped has ten for everything


class TrackerThread:
    """Starts a tracker and hands it everything in turn; the first failure is its last, and is reported once.

    Attribute `id`: what the tracker calls the run, '' until it has a name there.
    """

    def __init__(self, name: str, subject: Subject) -> None:
        self.name, self.id = name, subject.known
        self._subject = subject
        self._queue: Queue[Point | Callable[[Tracker], object] | None] = Queue(MOST)
        self._over = threading.Event()
        self._reporting = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, item: Point | Callable[[Tracker], object] | None) -> None:
        """Queue a point, something to do with the tracker, or None for the end; returns at once."""
        if self._over.is_set():
            return
        try:
            self._queue.put_nowait(item)
        except Full:
            self._fail(f"it is {MOST:,} points behind")

    def wait(self, until: float) -> None:
        """Wait for the tracker to have taken in everything, until a moment of `time.monotonic`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._fail("it has not taken in everything in time")

    def _work(self) -> None:
        try:
            tracker = make(self.name)
            self.id = tracker.start(self._subject)
            while not self._over.is_set():
                items = [self._queue.get()]
                with suppress(Empty):
                    while len(items) < AT_ONCE:
                        items.append(self._queue.get_nowait())
                for are_points, group in groupby(items, lambda item: isinstance(item, Point)):
                    if are_points:
                        tracker.log(list(group))  # type: ignore[arg-type]
                        continue
                    for call in group:
                        if call is None:
                            return
                        call(tracker)  # type: ignore[operator]
        except BaseException as error:  # a tracker may even call sys.exit: the training goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why: str) -> None:
        """Give the tracker up, and report it in one line, once."""
        with self._reporting:
            over = self._over.is_set()
            self._over.set()
        if over:
            return
        line = printable(" ".join(without_secrets(why).split()))
        print(
            f"tracker={self.name} has stopped: {line[:300]}. The run itself continues. "
            f"Later: trainlab export {self._subject.name} --to {self.name}",
            file=sys.stderr,
            flush=True,
        )


class TrackerGroup:
    """Hands what a run logs to each of its trackers; without any, does nothing."""

    def __init__(self) -> None:
        self._threads: list[TrackerThread] = []

    def start(self, names: list[str], folder: Path, config: dict[str, Any], ids: Mapping[str, str]) -> None:
        """Let trackers follow the run in `folder`; `ids` are what they called it before."""
        for name in names:
            place = (folder.parents[1], folder, folder.parent.name, folder.name)
            self._threads.append(TrackerThread(name, Subject(*place, config, ids.get(name, ""))))

    @property
    def ids(self) -> dict[str, str]:
        """What each tracker calls the run, as far as it has a name there."""
        return {each.name: each.id for each in self._threads if each.id}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand on numbers logged now."""
        self.hand_on((step, time.time(), tag, float(value)) for tag, value in metrics.items())

    def hand_on(self, points: Iterable[tuple[int, float, str, float]]) -> None:
        """Hand on points in the order in which they were logged: step, time, tag, value."""
        if self._threads:
            for step, when, tag, value in points:
                self._put(Point(step, when, of_tag(tag), value))

    def rewind(self, step: int) -> None:
        """Let the trackers forget what stands at `step` and later."""
        self._put(lambda tracker: tracker.rewind(step))

    def finish(self, status: str, reason: str | None) -> None:
        """Hand on how the run ended, and give the trackers some seconds together."""
        hidden = without_secrets(reason) if reason else None
        self._put(lambda tracker: tracker.finish(status, hidden))
        self._put(None)
        until = time.monotonic() + (STOP_SECONDS if status == "interrupted" else END_SECONDS)
        for each in self._threads:
            each.wait(until)

    def _put(self, item: Point | Callable[[Tracker], object] | None) -> None:
        for each in self._threads:
            each.put(item)
