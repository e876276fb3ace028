"""Writes event files: each record goes to the file at once, and an error comes back to who wrote it.

Numbers, texts and hyperparameters need TensorBoard's package alone. Torch's writer, which draws pictures into
the same file, would hand records to a thread: they are lost with the process, and errors are printed twice.

TensorBoard finds a run's metrics by itself, unless some run declares an 'experiment' for the hparams tab:
the first such declaration hides the columns of all others. So none is written.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as texts
from tensorboard.summary.writer.record_writer import RecordWriter

from trainlab import secrets
from trainlab.errors import UserError
from trainlab.run import events
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
        self._records = RecordWriter(self)
        self.add_event(Event(wall_time=time.time(), file_version=VERSION))

    def add_event(self, event: Any) -> None:
        """Write an event; after an error nothing more, since readers stop at a torn record."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                self._records.write(_without_secrets(event.SerializeToString()))
            except OSError as error:
                self._failure = error
                raise

    def add_summary(self, value: Summary.Value, step: int | None = None) -> None:
        """Write one value, at a step or at none."""
        self.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))

    def add_scalar(self, tag: str, number: float, step: int) -> None:
        """Write a number."""
        self.add_summary(Summary.Value(tag=tag, simple_value=number), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Write a text, under the name that torch's writer gives its tag."""
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        known = texts.create_summary_metadata(display_name="", description="")
        self.add_summary(Summary.Value(tag=f"{tag}/text_summary", metadata=known, tensor=tensor), step)

    def start_session(self, config: Mapping[str, Any]) -> None:
        """Write the settings as hyperparameters; None is left out."""
        session = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for key, value in plain(config).items():
            if isinstance(value, bool):
                session.hparams[key].bool_value = value
            elif isinstance(value, int | float):
                session.hparams[key].number_value = value
            elif value is not None:
                session.hparams[key].string_value = str(value)
        data = plugin_data_pb2.HParamsPluginData(session_start_info=session)
        self._add_session(hparams.SESSION_START_INFO_TAG, data)

    def end_session(self, status: str) -> None:
        """Write for the hparams tab that the session has ended as 'finished', or as anything else."""
        code = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        session = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=session)
        self._add_session(hparams.SESSION_END_INFO_TAG, data)

    def _add_session(self, tag: str, data: Any) -> None:
        known = hparams.create_summary_metadata(data)
        self.add_summary(Summary.Value(tag=tag, metadata=known, tensor=hparams.NULL_TENSOR))

    def start_again(self, step: int) -> None:
        """Tell readers to drop what earlier files hold at `step` and later.

        TensorBoard without its data server takes a folder's first such mark for the very start, and drops
        nothing. The data server needs none: a new point takes the place of its tag's at that step and later.
        """
        mark = SessionLog(status=SessionLog.START)
        for _ in range(2):
            self.add_event(Event(wall_time=time.time(), step=step, session_log=mark))

    def write(self, record: bytes) -> None:
        """Put bytes into the file."""
        rest = memoryview(record)
        while rest:
            rest = rest[self._file.write(rest) :]

    def get_logdir(self) -> str:
        """Return the folder, for torch's FileWriter."""
        return str(self._folder)

    def flush(self) -> None:
        """Do nothing: all is written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def summary_writer(file: EventFile) -> Any:
    """Return a SummaryWriter that writes to an event file: torch's, or tensorboardX's where torch is missing.

    Raises UserError where there is neither.
    """
    package = next(filter(find_spec, ("torch", "tensorboardX")), None)
    if package is None:
        raise UserError("Pictures and histograms need torch, or: pip install tensorboardX")
    place = "torch.utils.tensorboard" if package == "torch" else package
    module: Any = import_module(f"{place}.writer")

    class Files(module.FileWriter):
        def __init__(self) -> None:
            self.event_writer = file
            self._default_metadata: dict[str, Any] = {}  # tensorboardX's

    class Writer(module.SummaryWriter):
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
