"""Follows the event files of one running run: when it last made a step, how long steps take, and NaN.

What is new is read, some MiB at a look, and nothing is kept but a few numbers.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from trainlab import untrusted
from trainlab.run import events, tfrecords
from trainlab.run.messages import Event
from trainlab.run.metrics import VITALS

if TYPE_CHECKING:
    from pathlib import Path

USUAL = 10  # a pause is a stall that is so many times the usual one
AT_LEAST = 300.0  # seconds: a shorter one is nobody's worry
LONGEST = 2  # nor is one that is less than so many times the run's own longest: validation, a save
_FEWEST = 2  # pauses between steps, from which on the usual one is known
_LATEST = 200  # pauses that count


class Follower:
    """What a run has logged, as far as it was looked at.

    Attributes: `moved`, when it last made a step, in this machine's seconds since 1970, None before the
    first; `nan`, the tag of the first curve that was NaN, and its step.
    """

    def __init__(self, folder: Path) -> None:
        self.moved: float | None = None
        self.nan: tuple[str, int] | None = None
        self._folder = folder
        self._read: dict[str, int] = {}  # bytes of each event file
        self._broken: set[str] = set()
        self._pauses: deque[float] = deque(maxlen=_LATEST)
        self._longest = 0.0
        self._last: tuple[int, float] | None = None  # step and its wall time, of the newest file

    def look(self, now: float) -> None:
        """Read what was logged since the last look."""
        with suppress(OSError):
            for path in events.files(self._folder):
                if path.name not in self._broken:
                    with suppress(OSError):
                        self._add(path, now)

    def stalled(self, now: float) -> tuple[float, float] | None:
        """Return how long the run has made no step and how long it usually takes, None where all is well."""
        if self.moved is None or len(self._pauses) < _FEWEST:
            return None
        usual = median(self._pauses)
        pause = now - self.moved
        return (pause, usual) if pause > max(USUAL * usual, AT_LEAST, LONGEST * self._longest) else None

    def _add(self, path: Path, now: float) -> None:
        begin = self._read.get(path.name, 0)
        state = path.lstat()
        if state.st_size <= begin:
            return
        if not begin:
            self._last = None  # a new file is a new session, which may begin with another step
        with untrusted.opened(path) as file:
            file.seek(begin)
            try:
                start, block = next(tfrecords.blocks(file), (0, []))
            except tfrecords.GarbageError:
                self._broken.add(path.name)
                return
        if block:
            self._read[path.name] = begin + start + sum(map(len, block)) + tfrecords.FRAME * len(block)
            # of a run that stands still since before the first look, the file tells when it moved
            self._take(block, now if begin else min(now, state.st_mtime))

    def _take(self, block: list[bytes], now: float) -> None:
        for content in block:
            try:
                event = Event.FromString(content)
            except DecodeError:
                continue
            logged = [each for each in event.summary.value if not each.tag.startswith(VITALS)]
            known = [(each.tag, number) for each in logged if (number := _number(each)) is not None]
            if not known:
                continue
            if self.nan is None:
                self.nan = next(((tag, event.step) for tag, number in known if math.isnan(number)), None)
            self._step(event.step, event.wall_time, now)

    def _step(self, step: int, wall_time: float, now: float) -> None:
        if self._last is not None and step == self._last[0]:
            return
        if self._last is not None:
            pause = wall_time - self._last[1]
            if 0 <= pause < 86400 * 30:  # a clock may be set
                self._pauses.append(pause)
                self._longest = max(self._longest, pause)
        self._last, self.moved = (step, wall_time), now


def _number(value: Any) -> float | None:
    """Return the number that a point holds, None where it holds something else."""
    if value.HasField("simple_value"):
        return value.simple_value
    if value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("", "scalars"):
        from trainlab.run.gathering import scalar  # it brings NumPy

        return scalar(value)
    return None
