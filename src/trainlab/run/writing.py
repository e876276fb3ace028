"""Writes event files: each record goes to the file at once, and an error comes back to who wrote it.

Torch's and tensorboardX's writers would hand records to a thread: they are lost with the process, and errors
are printed twice. TensorboardX draws pictures into the same file, with or without torch.

TensorBoard finds a run's metrics by itself, unless some run declares an 'experiment' for the hparams tab:
the first such declaration hides the columns of all others. So none is written.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trainlab import secrets
from trainlab.run import events, messages, tfrecords
from trainlab.run.messages import Event, Value
from trainlab.run.record import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = "brain.Event:2"  # from which on readers look for the start of a session


class EventFile:
    """A new event file, which sorts behind all others of its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._failure: OSError | None = None
        # the time in the name sorts, also where the clock was set back
        newest = max(map(events.written_at, events.files(folder)), default=0)
        name = f"{max(int(time.time()), newest + 1):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = (folder / f"events.out.tfevents.{name}").open("xb", buffering=0)
        self.add_event(Event(wall_time=time.time(), file_version=VERSION))

    def add_event(self, event: Any) -> None:
        """Write an event; after an error nothing more, since readers stop at a torn record."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                rest = memoryview(tfrecords.record(_without_secrets(event.SerializeToString())))
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._failure = error
                raise

    def add_summary(self, value: Any, step: int | None = None) -> None:
        """Write one `Value`, at a step or at none."""
        self.add_event(Event(wall_time=time.time(), step=step, summary=messages.Summary(value=[value])))

    def add_drawn(self, tag: str, summary: Any, step: int) -> None:
        """Write a picture or histogram of tensorboardX's, which has changed letters of the tag."""
        (value,) = messages.Summary.FromString(summary.SerializeToString()).value
        value.tag = tag
        self.add_summary(value, step)

    def add_scalar(self, tag: str, number: float, step: int) -> None:
        """Write a number."""
        self.add_summary(Value(tag=tag, simple_value=number), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, under the name that torch's writer gives its tag."""
        shape = {"dim": [{"size": 1}]}
        tensor = messages.Tensor(dtype=messages.STRING, string_val=[text.encode()], tensor_shape=shape)
        known = {"plugin_data": {"plugin_name": "text"}}
        self.add_summary(Value(tag=f"{tag}/text_summary", metadata=known, tensor=tensor), step)

    def start_session(self, config: Mapping[str, Any]) -> None:
        """Write the settings as hyperparameters; None is left out."""
        session = messages.SessionStart(start_time_secs=time.time())
        for key, value in plain(config).items():
            if isinstance(value, bool):
                session.hparams.add(key=key).value.bool_value = value
            elif isinstance(value, int | float):
                session.hparams.add(key=key).value.number_value = value
            elif value is not None:
                session.hparams.add(key=key).value.string_value = str(value)
        self._add_session("session_start_info", session)

    def end_session(self, status: str) -> None:
        """Write for the hparams tab that the session has ended as 'finished', or as anything else."""
        code = messages.SUCCESS if status == "finished" else messages.FAILURE
        self._add_session("session_end_info", messages.SessionEnd(status=code, end_time_secs=time.time()))

    def _add_session(self, name: str, session: Any) -> None:
        """Write what the hparams plugin reads out of the metadata of a tag; the value is an empty tensor."""
        data = messages.HParams(**{name: session}).SerializeToString()
        known = {"plugin_data": {"plugin_name": "hparams", "content": data}}
        nothing = messages.Tensor(dtype=messages.FLOAT, tensor_shape={"dim": [{"size": 0}]})
        self.add_summary(Value(tag=f"_hparams_/{name}", metadata=known, tensor=nothing))

    def start_again(self, step: int) -> None:
        """Tell readers to drop what earlier files hold at `step` and later.

        TensorBoard without its data server takes a folder's first such mark for the very start, and drops
        nothing. The data server needs none: a new point takes the place of its tag's at that step and later.
        """
        mark = messages.SessionLog(status=messages.START)
        for _ in range(2):
            self.add_event(Event(wall_time=time.time(), step=step, session_log=mark))

    def get_logdir(self) -> str:
        """Return the folder, for tensorboardX's FileWriter."""
        return str(self._folder)

    def flush(self) -> None:
        """Do nothing: all is written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def summary_writer(file: EventFile) -> Any:
    """Return tensorboardX's SummaryWriter, writing to an event file."""
    import tensorboardX  # here: it imports torch where that is installed

    class Files(tensorboardX.FileWriter):
        def __init__(self) -> None:
            self.event_writer = file
            self._default_metadata: dict[str, Any] = {}

    class Writer(tensorboardX.SummaryWriter):
        def _get_file_writer(self) -> Any:
            if self.file_writer is None:
                self.file_writer: Any = Files()
                self.all_writers: Any = {file.get_logdir(): self.file_writer}
            return self.file_writer

    return Writer(file.get_logdir())


def _without_secrets(content: bytes) -> bytes:
    """Return an event's bytes, with the secrets in its tags and texts hidden."""
    if not secrets.may_hold(content):
        return content
    event = Event.FromString(content)
    for value in event.summary.value:
        value.tag = secrets.of_tag(value.tag)
        value.metadata.summary_description = secrets.without_secrets(value.metadata.summary_description)
        for number, text in enumerate(value.tensor.string_val):
            with suppress(UnicodeDecodeError):  # a picture
                value.tensor.string_val[number] = secrets.without_secrets(text.decode()).encode()
    return event.SerializeToString()
