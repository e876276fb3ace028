"""Writes event files: each record goes to the file at once, and an error comes back to who wrote it.

Torch's own writer hands records to a thread: they are lost with the process, and an error is printed twice.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from trainlab import secrets
from trainlab.run import events

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "brain.Event:2"  # from which on readers look for the start of a session


class Writer(SummaryWriter):
    """Torch's SummaryWriter on a new event file, which sorts behind all others of its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(str(folder))

    def start_again(self, step: int) -> None:
        """Tell readers to drop what earlier files hold at `step` and later.

        TensorBoard without its data server takes a folder's first such mark for the very start, and drops
        nothing. The data server needs none: a new point takes the place of its tag's at that step and later.
        """
        for _ in range(2):
            self._get_file_writer().add_event(Event(session_log=SessionLog(status=SessionLog.START)), step)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer: Any = _Summaries(self._folder)
            self.all_writers: Any = {str(self._folder): self.file_writer}
        return self.file_writer


class _Summaries(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = _EventFile(folder)


class _EventFile:
    """What torch's FileWriter writes events to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self.reopen()

    def reopen(self) -> None:
        """Start a new file."""
        self._file = _new_path(self._folder).open("xb", buffering=0)
        self._records = RecordWriter(self)
        self.add_event(Event(wall_time=time.time(), file_version=VERSION))

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        """Write an event; after an error nothing more, since readers stop at a torn record."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                self._records.write(_without_secrets(event))
            except OSError as error:
                self._failure = error
                raise

    def write(self, record: bytes) -> None:
        rest = memoryview(record)
        while rest:
            rest = rest[self._file.write(rest) :]

    def flush(self) -> None:
        """Do nothing: all is written."""

    def close(self) -> None:
        self._file.close()


def _without_secrets(event: Event) -> bytes:
    """Return an event's bytes, with the secrets in its tags and texts hidden."""
    content = event.SerializeToString()
    if not secrets.may_hold(content):
        return content
    for value in event.summary.value:
        value.tag = secrets.of_tag(value.tag)
        value.metadata.summary_description = secrets.without_secrets(value.metadata.summary_description)
        for number, text in enumerate(value.tensor.string_val):
            with suppress(UnicodeDecodeError):  # a picture
                value.tensor.string_val[number] = secrets.without_secrets(text.decode()).encode()
    return event.SerializeToString()


def _new_path(folder: Path) -> Path:
    """Return a path that sorts behind the folder's event files, also where the clock was set back."""
    newest = max(map(events.written_at, events.files(folder)), default=0)
    name = f"{max(int(time.time()), newest + 1):010d}.{socket.gethostname()}.{os.getpid()}.0"
    return folder / f"events.out.tfevents.{name}"
