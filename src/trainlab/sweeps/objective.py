"""The goal of a trial: its values in a run's event files, one a validation, and what judges the trial."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from trainlab import untrusted
from trainlab.run import events
from trainlab.run.gathering import MOST_POINTS, scalar
from trainlab.run.messages import START, Event
from trainlab.run.tfrecords import FRAME, GarbageError, blocks
from trainlab.runs import listing

if TYPE_CHECKING:
    from pathlib import Path

    from trainlab.run.metrics import Direction

_SESSION = b"\x3a"  # the key of an event's session log, which is a resume's mark; it stands behind its step,
_FIRST, _LAST = 9, 32  # among these bytes
_SCALARS = "scalars"


class Goal:
    """The values of one tag of a running run; each look reads what is new alone.

    A resume takes back what was logged at its step and later, as the table of runs has it.
    """

    def __init__(self, folder: Path, tag: str) -> None:
        self._folder, self._tag, self._key = folder, tag, tag.encode()
        self._read_to: dict[str, int] = {}  # bytes of each event file
        self._steps: list[int] = []
        self._values: list[float] = []
        self._scalar_tensors = False  # writers may say so in the tag's first event alone

    def values(self) -> list[float]:
        """Return the goal's value of each validation so far, by their ordinals: steps may be unequal."""
        for path in events.files(self._folder):
            begin = self._read_to.get(path.name, 0)
            if path.lstat().st_size <= begin or len(self._values) > MOST_POINTS:
                continue
            with suppress(OSError, GarbageError), untrusted.opened(path) as file:
                file.seek(begin)
                for place, block in blocks(file):
                    for event in block:
                        if self._key in event or event.find(_SESSION, _FIRST, _LAST) >= 0:
                            self._take(event)
                    self._read_to[path.name] = begin + place + sum(map(len, block)) + FRAME * len(block)
        return self._values

    def _take(self, content: bytes) -> None:
        with suppress(DecodeError):
            event = Event.FromString(content)
            if event.session_log.status == START:
                kept = [place for place, step in enumerate(self._steps) if step < event.step]
                self._values = [self._values[place] for place in kept]
                self._steps = [self._steps[place] for place in kept]
            for value in event.summary.value:
                if value.tag != self._tag:
                    continue
                self._scalar_tensors |= value.metadata.plugin_data.plugin_name == _SCALARS
                if value.HasField("simple_value") or self._scalar_tensors:
                    found = scalar(value)
                    if found is not None:
                        self._steps.append(event.step)
                        self._values.append(found)


def best(values: list[float], mode: Direction) -> float | None:
    """Return the best of some values, None where none is a finite number."""
    finite = [each for each in values if math.isfinite(each)]
    return (min if mode == "min" else max)(finite) if finite else None


def value(folder: Path, tag: str, mode: Direction) -> float | None:
    """Return what a run has come to: what the table of runs, sorted by the goal, ranks it by."""
    row = listing.read(folder, folder.parent.parent, directions={tag: mode})
    found = row.best.get(tag)
    return found if found is not None and math.isfinite(found) else None


def logged(folder: Path) -> list[str]:
    """Return the tags that a run has logged."""
    return [*listing.read(folder, folder.parent.parent).last]
