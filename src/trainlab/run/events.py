"""Reads scalars and hyperparameters from event files, whoever wrote them.

TensorFlow 1 and tensorboardX write `simple_value`, TensorFlow 2 and JAX scalar tensors, torch either.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from trainlab import secrets, untrusted
from trainlab.errors import UserError
from trainlab.run import tfrecords
from trainlab.run.metrics import Curve
from trainlab.run.signals import describe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainlab.run.gathering import EventReader


MARK = "tfevents"  # what the name of an event file holds


class EventFileError(UserError):
    """An event file that can't be read, or holds something else."""


@dataclass
class Facts:
    """What the event files of one folder say beside their points."""

    config: dict[str, Any] = field(default_factory=dict)  # from the hparams plugin
    started: float | None = None  # wall time of the first and of the last event, seconds since 1970,
    ended: float | None = None  # None for what can't be one
    count: int = 0  # events
    damaged: list[str] = field(default_factory=list)  # a sentence for each file that is


@dataclass
class History(Facts):
    """What the event files of one folder hold."""

    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass
class Outcome(Facts):
    """What the event files of one folder come to: {tag: value}, {tag: [value, step]}."""

    last: dict[str, float] = field(default_factory=dict)
    lowest: dict[str, list[float]] = field(default_factory=dict)  # the first of equals; NaN is never one
    highest: dict[str, list[float]] = field(default_factory=dict)


def files(folder: Path) -> list[Path]:
    """Return a folder's event files, oldest first by the time in their names; links are none."""
    with os.scandir(folder) as entries:
        found = [each.name for each in entries if MARK in each.name and each.is_file(follow_symlinks=False)]

    def natural(name: str) -> list[str | int]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

    return [folder / name for name in sorted(found, key=natural)]


def read(folder: Path) -> History:
    """Read all event files of a folder; a torn last record, of a killed or a running writer, is left out.

    A file that can't be opened, or holds anything but events, is named in `damaged`; what stands before the
    damage, and in the other files, counts.
    """
    facts, gathered = _gathered(folder)
    curves = {
        tag: Curve(points.steps.tolist(), points.wall_times.tolist(), points.values.tolist())
        for tag, points in gathered.curves().items()
    }
    return History(**facts, curves=curves)


def outcome(folder: Path) -> Outcome:
    """Read all event files of a folder, as `read` does, for the last, lowest and highest of each tag."""
    import numpy as np

    facts, gathered = _gathered(folder)
    found = Outcome(**facts)
    for tag, points in gathered.curves().items():
        if not len(points.values):
            continue
        found.last[tag] = float(points.values[-1])
        if not np.isnan(points.values).all():
            for extremes, find in ((found.lowest, np.nanargmin), (found.highest, np.nanargmax)):
                place = find(points.values)
                extremes[tag] = [float(points.values[place]), int(points.steps[place])]
    return found


def damaged(folder: Path) -> list[str]:
    """Return a sentence for each event file that can't be opened, or doesn't begin as one; empty is fine."""
    found = _refused(folder)
    for path in files(folder):
        try:
            check(path)
        except EventFileError as error:
            found.append(str(error))
    return found


def check(path: Path) -> None:
    """Raise EventFileError if a file can't be read or doesn't begin as an event file; empty is fine."""
    with _opened(path) as file:
        tfrecords.check(file.read(tfrecords.HEADER.size))


def _gathered(folder: Path) -> tuple[dict[str, Any], EventReader]:
    from trainlab.run.gathering import EventReader

    gathered, damaged = EventReader(), _refused(folder)
    for path in files(folder):
        try:
            with _opened(path) as file:
                gathered.add(file)
        except EventFileError as error:
            damaged.append(str(error))
        except Exception as error:  # well-formed events can hold anything
            damaged.append(f"{path}: {describe(error)}.")
    damaged += [f"{folder}: {each}" for each in gathered.left_out]
    started, ended = gathered.span()
    facts: dict[str, Any] = {"count": gathered.count, "started": started, "ended": ended}
    facts["config"] = secrets.hidden(gathered.config) if gathered.config else {}
    return facts | {"damaged": damaged}, gathered


def _refused(folder: Path) -> list[str]:
    """Return a sentence for each link, pipe or device that has the name of an event file."""
    with os.scandir(folder) as entries:
        odd = sorted(each.name for each in entries if MARK in each.name and untrusted.is_odd(each))
    return [f"{folder / name}: a link, a pipe or a device, and only files are read." for name in odd]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open an event file; raise EventFileError where it can't be read, or holds something else."""
    try:
        with untrusted.opened(path) as file:
            yield file
    except OSError as error:
        raise EventFileError(f"{path}: {error.strerror}.") from None
    except tfrecords.GarbageError as error:
        fault = f"no event at byte {error.place}. It is damaged, or something else than an event file."
        raise EventFileError(f"{path}: {fault}") from None


def written_at(path: Path) -> int:
    """Return the time in an event file's name, in seconds since 1970; 0 where it has none."""
    found = re.search(r"tfevents\.(\d+)", path.name)
    return int(found[1]) if found else 0
