"""The messages of event files are TensorBoard's own, byte for byte."""

from __future__ import annotations

import io

import numpy as np
import pytest

from trainlab.run import messages
from trainlab.run.gathering import EventReader
from trainlab.run.run import Run
from trainlab.run.tfrecords import record

event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # noqa: E402
from tensorboard.compat.proto import summary_pb2  # noqa: E402
from tensorboard.plugins.hparams import metadata  # noqa: E402
from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: E402
from tensorboard.util import tensor_util  # noqa: E402


def test_a_record_is_framed_as_tensorboard_s_writer_frames_it():
    for content in (b"", b"\0", b"123456789", bytes(range(256)) * 3):
        file = io.BytesIO()
        RecordWriter(file).write(content)
        assert record(content) == file.getvalue()


def test_what_is_no_field_here_survives_parsing_and_writing():
    image = summary_pb2.Summary.Image(height=2, encoded_image_string=b"png")
    value = summary_pb2.Summary.Value(tag="a", image=image)
    event = event_pb2.Event(step=3, summary=summary_pb2.Summary(value=[value]))
    again = messages.Event.FromString(event.SerializeToString()).SerializeToString()
    assert event_pb2.Event.FromString(again) == event


def test_tensorboard_reads_settings_how_a_run_ended_and_texts(tmp_path):
    with Run("a", {"lr": 0.5, "on": True, "name": "x"}, logs=tmp_path) as run:
        run.log_text("note", "hello", 0)
    (path,) = run.folder.glob("*tfevents*")
    values = {each.tag: each for event in EventFileLoader(str(path)).Load() for each in event.summary.value}
    content = values[metadata.SESSION_START_INFO_TAG].metadata.plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    found = {key: getattr(each, each.WhichOneof("kind")) for key, each in start.hparams.items()}
    assert found == {"lr": 0.5, "on": True, "name": "x"}
    content = values[metadata.SESSION_END_INFO_TAG].metadata.plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(content).status == 1  # STATUS_SUCCESS
    text = values["note/text_summary"]
    assert text.metadata.plugin_data.plugin_name == "text"
    assert tensor_util.make_ndarray(text.tensor).tolist() == [b"hello"]


@pytest.mark.parametrize(
    "kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?", "repeated", "content"]
)
def test_a_scalar_of_any_type_is_read_as_tensorboard_reads_it(kind):
    number = 1 if kind == "?" else 42
    if kind in ("repeated", "content"):
        tensor = tensor_util.make_tensor_proto(np.float64(42.0))
        if kind == "content":
            tensor.tensor_content = np.float64(42).tobytes()
            del tensor.double_val[:]
    else:
        tensor = tensor_util.make_tensor_proto(np.array(number, kind))
    assert tensor_util.make_ndarray(tensor).item() == number
    known = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    value = summary_pb2.Summary.Value(tag="x", metadata=known, tensor=tensor)
    event = event_pb2.Event(wall_time=1.7e9, step=1, summary=summary_pb2.Summary(value=[value]))
    reader = EventReader()
    reader.add(io.BytesIO(record(event.SerializeToString())))
    assert reader.curves()["x"].values.tolist() == [number]


def test_more_numbers_than_one_and_texts_are_no_scalar():
    reader = EventReader()
    for array in (np.zeros(2), np.array(b"text")):
        known = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
        tensor = tensor_util.make_tensor_proto(array)
        value = summary_pb2.Summary.Value(tag="x", metadata=known, tensor=tensor)
        event = event_pb2.Event(wall_time=1.7e9, summary=summary_pb2.Summary(value=[value]))
        reader.add(io.BytesIO(record(event.SerializeToString())))
    assert reader.curves() == {}
