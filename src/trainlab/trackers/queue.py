"""Carries what a run logs to a tracker, on a thread of its own: one that fails or hangs stops nothing."""

from __future__ import annotations

import sys
import threading
import time
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from trainlab.cleaning import printable
from trainlab.secrets import without_secrets
from trainlab.trackers import Point, Subject, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trainlab.run.record import Status
    from trainlab.trackers import Tracker

MOST = 100_000  # things that wait for a slow tracker, 20 MB; more are dropped
AT_ONCE = 1_000  # points that a tracker is handed together


class Courier:
    """Starts a tracker and hands it everything in turn; the first failure is its last, and is told once.

    Attribute `id`: what the tracker calls the run, '' until it has said so.
    """

    def __init__(self, name: str, subject: Subject) -> None:
        self.name, self.id = name, subject.known
        self._subject = subject
        self._waiting: Queue[Point | Callable[[Tracker], object] | None] = Queue(MOST)
        self._over = threading.Event()
        self._told = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, points: Iterable[Point]) -> None:
        """Take points along; returns at once."""
        for point in points:
            self._put(point)

    def rewind(self, step: int) -> None:
        """Let the tracker forget what stands at `step` and later."""
        self._put(lambda tracker: tracker.rewind(step))

    def finish(self, status: Status, reason: str | None) -> None:
        """Say that nothing more will come; `wait` gives it the time to arrive."""
        hidden = without_secrets(reason) if reason else None
        self._put(lambda tracker: tracker.finish(status, hidden))
        self._put(None)

    def wait(self, until: float) -> None:
        """Wait for the tracker to have taken in everything, until a moment of `time.monotonic`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._fail("it has not taken in everything in time")

    def _put(self, errand: Point | Callable[[Tracker], object] | None) -> None:
        if self._over.is_set():
            return
        try:
            self._waiting.put_nowait(errand)
        except Full:
            self._fail(f"it is {MOST:,} points behind")

    def _work(self) -> None:
        try:
            tracker = make(self.name)
            self.id = tracker.start(self._subject)
            for points, errand in self._batches():
                if points:
                    tracker.log(points)
                if errand is not None:
                    errand(tracker)
        except BaseException as error:  # a tracker may even call sys.exit: the training goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _batches(self) -> Iterator[tuple[Sequence[Point], Callable[[Tracker], object] | None]]:
        """Yield the points that wait, many together, with what is to be done after them, until the end."""
        points: list[Point] = []
        while not self._over.is_set():
            try:
                errand = self._waiting.get(block=not points)
            except Empty:  # no more points at the moment
                yield points, None
                points = []
                continue
            if isinstance(errand, Point) and len(points) < AT_ONCE:
                points.append(errand)
                continue
            if errand is None:
                return
            yield points, None if isinstance(errand, Point) else errand
            points = [errand] if isinstance(errand, Point) else []

    def _fail(self, why: str) -> None:
        """Give the tracker up, and say so in one line, once."""
        with self._told:
            if self._over.is_set():
                return
            self._over.set()
        line = printable(" ".join(without_secrets(why).split()))
        print(
            f"tracker={self.name} has stopped: {line[:300]}. The run itself continues. "
            f"Later: trainlab export {self._subject.name} --to {self.name}",
            file=sys.stderr,
            flush=True,
        )
