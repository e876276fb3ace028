from __future__ import annotations

import math
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util
from tensorboardX import SummaryWriter

from trainlab.run import events, gathering, tfrecords
from trainlab.run.metrics import Summary as Best

START = 1_600_000_000  # seconds since 1970


def record(event):
    content = event.SerializeToString()
    header = struct.pack("<Q", len(content))
    crcs = (struct.pack("<I", masked_crc32c(each)) for each in (header, content))
    return header + next(crcs) + content + next(crcs)


def simple(tag, value, step):
    return Event(
        wall_time=START + step, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def tensor(tag, array, step, plugin="scalars"):
    value = Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(array))
    if plugin:
        value.metadata.CopyFrom(SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin)))
    return Event(wall_time=START + step, step=step, summary=Summary(value=[value]))


def write(folder, written, name="events.out.tfevents.100.host"):
    path = folder / name
    path.write_bytes(
        b"".join(
            record(each) for each in [Event(wall_time=START - 1, file_version="brain.Event:2"), *written]
        )
    )
    return path


def points(folder, tag="a"):
    curve = events.read(folder).curves[tag]
    return list(zip(curve.steps, curve.values, strict=True))


def test_simple_values_of_tensorflow_1_and_tensorboardx_are_read(tmp_path):
    write(tmp_path, [simple("a", 0.5, 1), simple("b", 2, 1), simple("a", 0.25, 2)])
    assert points(tmp_path) == [(1, 0.5), (2, 0.25)]
    assert points(tmp_path, "b") == [(1, 2.0)]
    assert events.read(tmp_path).curves["a"].wall_times == [START + 1, START + 2]
    assert (events.read(tmp_path).started, events.read(tmp_path).ended) == (START - 1, START + 2)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.int32])
def test_scalar_tensors_of_tensorflow_2_and_jax_are_read(tmp_path, kind):
    write(tmp_path, [tensor("a", kind(2), 1), tensor("a", kind(4), 2, plugin=None)])
    assert points(tmp_path) == [(1, 2.0), (2, 4.0)]


def test_tensors_that_are_no_scalars_are_left_out(tmp_path):
    write(tmp_path, [tensor("text", np.array(b"x"), 1, "text"), tensor("image", np.ones(3), 1, "images")])
    assert events.read(tmp_path).curves == {}


@pytest.mark.parametrize("new_style", [False, True])
def test_torch_writers_are_read_with_their_hyperparameters(tmp_path, new_style):
    pytest.importorskip("torch")
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    with TorchWriter(str(tmp_path)) as writer:
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


def test_after_a_resume_the_later_file_wins_from_its_marks_step_on(tmp_path):
    write(
        tmp_path,
        [simple("a", value, step) for step, value in enumerate([1, 2, 3, 4])],
        "events.out.tfevents.9.h",
    )
    mark = Event(wall_time=START, step=2, session_log=SessionLog(status=SessionLog.START))
    write(tmp_path, [mark, simple("a", 20, 2)], "events.out.tfevents.10.h")
    assert points(tmp_path) == [(0, 1.0), (1, 2.0), (2, 20.0)]


def test_a_purging_writer_takes_back_the_points_of_every_tag(tmp_path):
    write(tmp_path, [simple(tag, step, step) for step in range(4) for tag in "ab"], "events.out.tfevents.1.h")
    purge = Event(wall_time=START + 100, step=2, session_log=SessionLog(status=SessionLog.START))
    write(tmp_path, [purge, simple("a", 20, 2)], "events.out.tfevents.2.h")
    assert points(tmp_path, "a") == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert points(tmp_path, "b") == [(0, 0.0), (1, 1.0)]


def test_a_step_written_twice_keeps_both_values(tmp_path):
    write(tmp_path, [simple("a", 1, 1), simple("a", 2, 2), simple("a", 3, 2)])
    assert points(tmp_path) == [(1, 1.0), (2, 2.0), (2, 3.0)]


def test_a_second_writer_of_other_tags_takes_nothing_back(tmp_path):
    write(tmp_path, [simple("a", 1, 5)], "events.out.tfevents.1.h")
    write(tmp_path, [simple("b", 1, 0)], "events.out.tfevents.2.h")
    assert points(tmp_path, "a") == [(5, 1.0)]


def test_thousands_of_points_are_those_that_were_written_by_any_writer(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((400, 4)).astype(np.float32)
    numbers[7, :] = np.nan, 0, np.inf, -0.0
    steps = np.cumsum(rng.integers(1, 1 << 14, 400))
    steps[-1] = 1 << 40
    makers = {"a": simple, "a/longer": simple, "tensor": tensor, "double": tensor}
    rows = [
        maker(tag, number if tag != "double" else np.float64(number), int(step))
        for step, row in zip(steps, numbers, strict=True)
        for (tag, maker), number in zip(makers.items(), row, strict=True)
    ]
    write(tmp_path, rows)
    for tag, column in zip(makers, numbers.T, strict=True):
        np.testing.assert_array_equal(points(tmp_path, tag), np.stack([steps, column.astype(float)], 1))


def test_only_the_first_event_of_a_tag_may_say_that_its_tensors_are_scalars(tmp_path):
    number = np.float32
    named = [
        tensor("a", number(0), 1),
        *(tensor("a", number(each), each, plugin=None) for each in range(2, 50)),
    ]
    write(tmp_path, named, "events.out.tfevents.1.host")
    write(
        tmp_path,
        [tensor("b", number(each), each, plugin=None) for each in range(1, 50)],
        "events.out.tfevents.2.host",
    )
    assert len(points(tmp_path)) == 49
    assert "b" not in events.read(tmp_path).curves


def test_steps_that_start_again_without_a_mark_take_nothing_back(tmp_path):
    first = [simple("a", step, step) for step in range(1, 301)]
    again = [simple("a", -step, step) for step in range(100, 201)]
    write(tmp_path, [*first, *again])
    assert points(tmp_path) == [(s, float(s)) for s in range(1, 301)] + [
        (s, -float(s)) for s in range(100, 201)
    ]
    assert events.outcome(tmp_path).last == {"a": -200.0}


def test_all_points_without_steps_count(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for number in range(20):
            writer.add_scalar("val/loss", 1 + (number - 7) ** 2)
    assert points(tmp_path, "val/loss") == [(0, 1.0 + (number - 7) ** 2) for number in range(20)]
    found = events.outcome(tmp_path)
    assert (found.last["val/loss"], found.lowest["val/loss"]) == (145.0, [1.0, 0])


def test_of_four_trainings_in_one_folder_the_best_of_all_and_the_last_of_the_last_count(tmp_path):
    for number, best in enumerate([0.49, 0.31, 0.27, 0.18]):
        values = [0.1, best, best / 2]
        rows = [simple("accuracy", value, step) for step, value in enumerate(values)]
        write(tmp_path, rows, f"events.out.tfevents.{number}.host")
    assert len(points(tmp_path, "accuracy")) == 12
    found = events.outcome(tmp_path)
    assert found.highest["accuracy"] == [pytest.approx(0.49), 1]
    assert found.last["accuracy"] == pytest.approx(0.09)


def test_several_marks_take_back_what_stands_before_each_from_its_step_on(tmp_path):
    marks = [
        Event(wall_time=START, step=step, session_log=SessionLog(status=SessionLog.START))
        for step in (300, 40, 0, 1 << 20)  # of different lengths, so that they are not read in their order
    ]
    rows = [[simple("a", 1000 * part + step, step) for step in range(0, 100, 10)] for part in range(5)]
    write(tmp_path, [*rows[0], marks[0], *rows[1], marks[1], *rows[2]], "events.out.tfevents.1.h")
    kept = [(s, float(part * 1000 + s)) for part in (0, 1) for s in range(0, 40, 10)]
    assert points(tmp_path) == kept + [(s, 2000.0 + s) for s in range(0, 100, 10)]
    write(tmp_path, [marks[2], *rows[3], marks[3], *rows[4]], "events.out.tfevents.2.h")
    assert points(tmp_path) == [(s, 1000.0 * part + s) for part in (3, 4) for s in range(0, 100, 10)]


@pytest.mark.parametrize("wrong", [1000.0 * START, math.nan, math.inf, -1.0, 0.0, 1e300])
def test_a_time_that_can_be_none_leaves_the_start_and_the_end_to_the_others(tmp_path, wrong):
    rows = [simple("a", step, step) for step in range(4)]
    rows[0].wall_time = rows[3].wall_time = wrong
    path = write(tmp_path, rows)
    path.write_bytes(b"".join(map(record, rows)))  # without the first event, whose time is possible
    found = events.outcome(tmp_path)
    assert (found.started, found.ended, found.last) == (START + 1, START + 2, {"a": 3.0})


def test_an_event_that_is_none_ends_its_file_and_what_stands_before_counts(tmp_path):
    rows = [simple(tag, step, step) for step in range(1, 101) for tag in ("a", "longer/name")]
    path = write(tmp_path, rows)
    content = bytearray(path.read_bytes())
    place = content.index(record(rows[100])) + 12
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    found = events.read(tmp_path)
    assert [len(found.curves[tag].steps) for tag in ("a", "longer/name")] == [50, 50]
    assert f"no event at byte {place - 12}" in found.damaged[0]


def test_records_of_any_size_are_read_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecords, "BLOCK", 1000)
    long = tensor("text", np.array(b"x" * 100_000), 1, "text")
    short = [simple("a", step, step) for step in range(1, 101)]
    write(tmp_path, [*short[:50], long, *short[50:]])
    assert points(tmp_path) == [(step, float(step)) for step in range(1, 101)]


def test_an_event_file_within_an_event_is_not_read_as_events(tmp_path):
    inner = b"".join(record(simple("inner", 1, step)) for step in range(1, 9))
    write(tmp_path, [simple("a", 1, 1), tensor("text", np.array(inner), 1, "text"), simple("a", 2, 2)])
    assert set(events.read(tmp_path).curves) == {"a"}
    assert points(tmp_path) == [(1, 1.0), (2, 2.0)]


def test_the_outcome_is_the_last_the_lowest_and_the_highest_of_each_curve(tmp_path):
    values = {
        "val/loss": [3.0, 1.0, 2.0, math.nan],
        "accuracy": [0.5, 0.75, 0.25, math.inf],
        "none": [math.nan] * 4,
    }
    rows = [simple(tag, row[step], step) for step in range(4) for tag, row in values.items()]
    write(tmp_path, rows)
    found = events.outcome(tmp_path)
    assert found.lowest == {"val/loss": [1.0, 1], "accuracy": [0.25, 2]}
    assert found.highest == {"val/loss": [3.0, 0], "accuracy": [math.inf, 3]}
    best = Best.of(events.read(tmp_path).curves).best
    assert {tag: list(point.values()) for tag, point in best.items()} == {
        "val/loss": found.lowest["val/loss"],
        "accuracy": found.highest["accuracy"],
    }
    assert math.isnan(found.last["val/loss"])
    assert found.last["accuracy"] == math.inf


def header(length):
    said = struct.pack("<Q", length)
    return said + struct.pack("<I", masked_crc32c(said))


@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 2**40, 5 << 30])
def test_a_record_longer_than_its_file_is_named_and_not_waited_for(tmp_path, length):
    path = write(tmp_path, [simple("a", 1, 1)])
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + header(length) + b"x" * 100)
    assert f"no event at byte {size}" in events.read(tmp_path).damaged[0]
    assert points(tmp_path) == [(1, 1.0)]


def test_a_record_of_gigabytes_is_passed_over_unread(tmp_path):
    path = write(tmp_path, [simple("a", 1, 1)])
    place = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(place)
        file.write(header(5 << 30))
        file.seek((5 << 30) + 4, 1)
        file.write(record(simple("a", 2, 2)))
    assert points(tmp_path) == [(1, 1.0), (2, 2.0)]
    assert events.read(tmp_path).damaged == []


def shaped(tag, **content):
    value = Summary.Value(tag=tag, tensor=TensorProto(**content), metadata=SummaryMetadata(data_class=1))
    value.metadata.plugin_data.plugin_name = "scalars"
    return Event(step=1, wall_time=1, summary=Summary(value=[value]))


def test_tensors_that_are_not_what_they_say_are_left_out(tmp_path):
    large = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2**31 - 1)] * 2)
    negative = TensorShapeProto(dim=[TensorShapeProto.Dim(size=-1)])
    odd = [
        shaped("a", dtype=1, tensor_shape=large),
        shaped("b", dtype=2, tensor_shape=large, double_val=[1.0]),
        shaped("c", dtype=1, tensor_shape=negative, float_val=[1.0]),
        shaped("d", dtype=99, tensor_content=b"x"),
        shaped("e", dtype=1, tensor_content=b"xxx"),
        shaped("f", dtype=1),
    ]
    write(tmp_path, [*odd, simple("good", 2, 2)])
    found = events.read(tmp_path)
    assert "good" in found.curves
    assert not {"a", "b", "c", "d", "e"} & set(found.curves)
    assert found.damaged == []


def test_hyperparameters_that_are_none_hide_no_curve(tmp_path):
    value = Summary.Value(tag="_hparams_/session_start_info", metadata=SummaryMetadata())
    value.metadata.plugin_data.plugin_name, value.metadata.plugin_data.content = "hparams", b"\xff\xff"
    write(tmp_path, [Event(step=1, wall_time=1, summary=Summary(value=[value])), simple("a", 1, 1)])
    assert points(tmp_path) == [(1, 1.0)]
    assert events.read(tmp_path).config == {}


@pytest.mark.parametrize("count", [3, 40])
def test_more_tags_than_are_taken_in_are_left_out_with_a_sentence(tmp_path, monkeypatch, count):
    monkeypatch.setattr(gathering, "MOST_TAGS", 2)
    write(tmp_path, [simple(f"tag{tag:03}", tag, step) for step in range(5) for tag in range(count)])
    found = events.read(tmp_path)
    assert {tag: curve.values for tag, curve in found.curves.items()} == {
        "tag000": [0] * 5,
        "tag001": [1] * 5,
    }
    assert found.damaged == [
        f"{tmp_path}: more than 2 tags, or longer ones than 1,000 letters: the rest is left out."
    ]


@pytest.mark.parametrize("bound", ["MOST_POINTS", "MOST_PARSED"])
def test_reading_ends_at_a_bound_and_says_so(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(tfrecords, "BLOCK", 1000)
    monkeypatch.setattr(gathering, bound, 100)
    if bound == "MOST_POINTS":
        write(tmp_path, [simple("a", 1, step) for step in range(1000)])
    else:
        texts = [tensor("text", np.array(b"x" * (step % 7)), step, "text") for step in range(1000)]
        write(tmp_path, [simple("a", 1, 1), *texts, simple("a", 1, 1000)])
    found = events.read(tmp_path)
    assert 1 <= len(found.curves["a"].steps) < 200
    assert 1000 not in found.curves["a"].steps
    assert "the rest is left out" in found.damaged[0]


def test_thousands_of_tags_are_looked_at_once_each(tmp_path, monkeypatch):
    looks = []

    def counted(content):
        looks.append(content)
        return Event.FromString(content)

    monkeypatch.setattr(gathering, "Event", SimpleNamespace(FromString=counted))
    write(tmp_path, [simple(f"tag{number:06}", 1, 1) for number in range(20_000)])
    assert len(events.read(tmp_path).curves) == gathering.MOST_TAGS
    assert 20_000 <= len(looks) < 3 * 20_000
