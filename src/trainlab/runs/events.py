"""Reads scalars and hyperparameters from event files, whoever wrote them.

TensorFlow 1 and tensorboardX write `simple_value`, TensorFlow 2 and JAX scalar tensors, torch either. The
files are TFRecords: length (8 bytes), its masked CRC-32C (4), an Event (length), its CRC-32C (4). The CRC of
the length is checked, which tells garbage from a record; that of the Event would take Python too long.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4
_SCALARS = "scalars"  # the plugin's name in a scalar tensor's metadata


class EventFileError(UserError):
    """An event file that can't be read, or holds something else."""


@dataclass
class Curve:
    """One tag's points in the order of their steps, one value a step."""

    steps: list[int] = field(default_factory=list)
    wall_times: list[float] = field(default_factory=list)  # seconds since 1970
    values: list[float] = field(default_factory=list)

    def add(self, step: int, wall_time: float, value: float) -> None:
        """Append a point; where the steps start again, a resumed run's say, the later point wins."""
        if self.steps and step <= self.steps[-1]:
            self.drop_from(step)
        self.steps.append(step)
        self.wall_times.append(wall_time)
        self.values.append(value)

    def drop_from(self, step: int) -> None:
        """Forget the points at `step` and later."""
        first = bisect_left(self.steps, step)
        del self.steps[first:], self.wall_times[first:], self.values[first:]


@dataclass
class History:
    """What the event files of one folder hold."""

    curves: dict[str, Curve] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # from the hparams plugin
    started: float | None = None  # wall time of the first and of the last event, seconds since 1970
    ended: float | None = None
    damaged: list[str] = field(default_factory=list)  # a sentence for each file that is


def files(folder: Path) -> list[Path]:
    """Return a folder's event files, oldest first by the time in their names."""
    found = (path for path in folder.iterdir() if "tfevents" in path.name and path.is_file())
    return sorted(found, key=_natural)


def read(folder: Path) -> History:
    """Read all event files of a folder; a torn last record, of a killed or a running writer, is left out.

    A file that can't be opened, or holds anything but events, is named in `damaged`; what stands before the
    damage, and in the other files, counts.
    """
    history = History()
    for path in files(folder):
        kinds: dict[str, str] = {}  # tag -> plugin: writers may name it in a tag's first event only
        try:
            for event in _events(path):
                _take(event, history, kinds)
        except EventFileError as error:
            history.damaged.append(str(error))
    return history


def damaged(folder: Path) -> list[str]:
    """Return a sentence for each event file that can't be opened, or doesn't begin as one; empty is fine."""
    found = []
    for path in files(folder):
        try:
            check(path)
        except EventFileError as error:
            found.append(str(error))
    return found


def check(path: Path) -> None:
    """Raise EventFileError if a file can't be read or doesn't begin as an event file; empty is fine."""
    with _opened(path) as file:
        _length(file, path)


def _events(path: Path) -> Iterator[Event]:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    with _opened(path) as file:
        while (length := _length(file, path)) is not None:
            content = file.read(length + _FOOTER_BYTES)
            if len(content) < length + _FOOTER_BYTES:
                return
            try:
                yield Event.FromString(content[:length])
            except DecodeError:
                raise _garbage(path, file.tell() - len(content) - _HEADER.size) from None


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise EventFileError(f"{path}: {error.strerror}.") from None


def _length(file: IO[bytes], path: Path) -> int | None:
    """Read a record's header and return the length of its event, None at the file's end."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        if header[3:8].strip(b"\0"):  # no record is longer than 16 MiB, and no text has zeros there
            raise _garbage(path, file.tell() - len(header))
        return None
    length, crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != crc:
        raise _garbage(path, file.tell() - len(header))
    return length


def _garbage(path: Path, place: int) -> EventFileError:
    return EventFileError(
        f"{path}: no event at byte {place}. It is damaged, or something else than an event file."
    )


def _take(event: Event, history: History, kinds: dict[str, str]) -> None:
    if history.started is None:
        history.started = event.wall_time
    history.ended = event.wall_time
    if event.WhichOneof("what") == "session_log" and event.session_log.status == event.session_log.START:
        for curve in history.curves.values():  # `purge_step`: a resumed run takes back what came after it
            curve.drop_from(event.step)
    for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name:
            kinds[value.tag] = value.metadata.plugin_data.plugin_name
        if kinds.get(value.tag) == "hparams":
            history.config |= _hyperparameters(value)
        elif (number := _number(value, kinds.get(value.tag))) is not None:
            history.curves.setdefault(value.tag, Curve()).add(event.step, event.wall_time, number)


def _number(value: Summary.Value, kind: str | None) -> float | None:
    """Return a scalar's value, None for everything that is no scalar."""
    from tensorboard.util import tensor_util

    which = value.WhichOneof("value")
    if which == "simple_value":
        return value.simple_value
    if which != "tensor" or kind != _SCALARS:
        return None
    if len(value.tensor.float_val) == 1:
        return value.tensor.float_val[0]
    array = tensor_util.make_ndarray(value.tensor)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else None


def _hyperparameters(value: Summary.Value) -> dict[str, Any]:
    from tensorboard.plugins.hparams import plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    hparams = data.session_start_info.hparams
    return {key: getattr(each, kind) for key, each in hparams.items() if (kind := each.WhichOneof("kind"))}


def written_at(path: Path) -> int:
    """Return the time in an event file's name, in seconds since 1970; 0 where it has none."""
    found = re.search(r"tfevents\.(\d+)", path.name)
    return int(found[1]) if found else 0


def _natural(path: Path) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
