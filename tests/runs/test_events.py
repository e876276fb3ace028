from __future__ import annotations

import struct

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from trainlab.runs import events


def record(event):
    content = event.SerializeToString()
    header = struct.pack("<Q", len(content))
    crcs = (struct.pack("<I", masked_crc32c(each)) for each in (header, content))
    return header + next(crcs) + content + next(crcs)


def simple(tag, value, step):
    return Event(
        wall_time=100 + step, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def tensor(tag, array, step, plugin="scalars"):
    value = Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(array))
    if plugin:
        value.metadata.CopyFrom(SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin)))
    return Event(wall_time=100 + step, step=step, summary=Summary(value=[value]))


def write(folder, written, name="events.out.tfevents.100.host"):
    path = folder / name
    path.write_bytes(
        b"".join(record(each) for each in [Event(wall_time=99, file_version="brain.Event:2"), *written])
    )
    return path


def points(folder, tag="a"):
    curve = events.read(folder).curves[tag]
    return list(zip(curve.steps, curve.values, strict=True))


def test_simple_values_of_tensorflow_1_and_tensorboardx_are_read(tmp_path):
    write(tmp_path, [simple("a", 0.5, 1), simple("b", 2, 1), simple("a", 0.25, 2)])
    assert points(tmp_path) == [(1, 0.5), (2, 0.25)]
    assert points(tmp_path, "b") == [(1, 2.0)]
    assert events.read(tmp_path).curves["a"].wall_times == [101, 102]
    assert (events.read(tmp_path).started, events.read(tmp_path).ended) == (99, 102)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.int32])
def test_scalar_tensors_of_tensorflow_2_and_jax_are_read(tmp_path, kind):
    write(tmp_path, [tensor("a", kind(2), 1), tensor("a", kind(4), 2, plugin=None)])
    assert points(tmp_path) == [(1, 2.0), (2, 4.0)]


def test_tensors_that_are_no_scalars_are_left_out(tmp_path):
    write(tmp_path, [tensor("text", np.array(b"x"), 1, "text"), tensor("image", np.ones(3), 1, "images")])
    assert events.read(tmp_path).curves == {}


@pytest.mark.parametrize("new_style", [False, True])
def test_torch_writers_are_read_with_their_hyperparameters(tmp_path, new_style):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("a", 0.5, 3, new_style=new_style)
        writer.add_text("note", "x", 3)
        writer.add_histogram("h", np.arange(3.0), 3)
        writer.add_hparams({"lr": 0.5, "on": True, "name": "x"}, {"b": 1.0}, run_name=".")
    assert points(tmp_path) == [(3, 0.5)]
    assert events.read(tmp_path).config == {"lr": 0.5, "on": True, "name": "x"}
    assert set(events.read(tmp_path).curves) == {"a", "b"}


@pytest.mark.parametrize("cut", [1, 4, 11, 13, 20])
def test_a_torn_last_record_ends_the_file_quietly(tmp_path, cut):
    path = write(tmp_path, [simple("a", 1, 1), simple("a", 2, 2)])
    path.write_bytes(path.read_bytes()[:-cut])
    assert points(tmp_path) == [(1, 1.0)]


def test_a_file_that_has_just_been_made_is_fine(tmp_path):
    (tmp_path / "events.out.tfevents.1.host").touch()
    assert events.read(tmp_path).curves == {}
    assert events.damaged(tmp_path) == []


@pytest.mark.parametrize("garbage", [b"hello", b"hello, this is no event file", b"\0" * 100, b"\xff" * 12])
def test_garbage_is_named(tmp_path, garbage):
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(garbage)
    for found in (events.read(tmp_path).damaged, events.damaged(tmp_path)):
        (sentence,) = found
        assert "events.out.tfevents.1.host: no event at byte 0" in sentence


def test_garbage_behind_good_records_is_named_with_its_place(tmp_path):
    path = write(tmp_path, [simple("a", 1, 1)])
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"garbage garbage garbage")
    assert f"no event at byte {size}" in events.read(tmp_path).damaged[0]
    assert points(tmp_path) == [(1, 1.0)]


def test_a_record_that_is_no_event_is_named(tmp_path):
    content = b"\xff\xff\xff"
    header = struct.pack("<Q", len(content))
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(header + struct.pack("<I", masked_crc32c(header)) + content + b"0000")
    assert "no event at byte 0" in events.read(tmp_path).damaged[0]


def test_after_a_resume_the_later_file_wins_from_its_first_step_on(tmp_path):
    write(
        tmp_path,
        [simple("a", value, step) for step, value in enumerate([1, 2, 3, 4])],
        "events.out.tfevents.9.h",
    )
    write(tmp_path, [simple("a", 20, 2)], "events.out.tfevents.10.h")
    assert points(tmp_path) == [(0, 1.0), (1, 2.0), (2, 20.0)]


def test_a_purging_writer_takes_back_the_points_of_every_tag(tmp_path):
    write(tmp_path, [simple(tag, step, step) for step in range(4) for tag in "ab"], "events.out.tfevents.1.h")
    purge = Event(wall_time=200, step=2, session_log=SessionLog(status=SessionLog.START))
    write(tmp_path, [purge, simple("a", 20, 2)], "events.out.tfevents.2.h")
    assert points(tmp_path, "a") == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert points(tmp_path, "b") == [(0, 0.0), (1, 1.0)]


def test_a_step_written_twice_keeps_its_last_value(tmp_path):
    write(tmp_path, [simple("a", 1, 1), simple("a", 2, 2), simple("a", 3, 2)])
    assert points(tmp_path) == [(1, 1.0), (2, 3.0)]


def test_a_second_writer_of_other_tags_takes_nothing_back(tmp_path):
    write(tmp_path, [simple("a", 1, 5)], "events.out.tfevents.1.h")
    write(tmp_path, [simple("b", 1, 0)], "events.out.tfevents.2.h")
    assert points(tmp_path, "a") == [(5, 1.0)]
