"""The end of an event file, read again and again while it grows."""

from __future__ import annotations

import math

import pytest

from trainlab.notify import following
from trainlab.notify.following import Follower
from trainlab.run import messages
from trainlab.run.messages import Event, Value
from trainlab.run.tfrecords import record

NOW = 1_900_000_000.0


def point(step, at, tag="train/loss", value=1.0):
    return record(
        Event(
            wall_time=at,
            step=step,
            summary=messages.Summary(value=[Value(tag=tag, simple_value=value)]),
        ).SerializeToString()
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(b"".join(point(step, NOW - 300 + 60 * step) for step in range(5)))
    return path


def append(path, *points):
    with path.open("ab") as file:
        file.write(b"".join(points))


def test_no_step_for_ten_times_the_usual_is_a_stall_until_the_next_step(file):
    run = Follower(file.parent)
    run.look(NOW)
    append(file, point(5, NOW))
    run.look(NOW)
    assert run.stalled(NOW + 599) is None
    pause, usual = run.stalled(NOW + 601)
    assert (pause, usual) == (601, 60)
    append(file, point(6, NOW + 1600))
    run.look(NOW + 1600)
    assert run.stalled(NOW + 1601) is None


def test_a_pause_as_long_as_the_run_s_own_longest_is_none(file):
    run = Follower(file.parent)
    run.look(NOW)
    append(file, point(5, NOW + 3600), *(point(step, NOW + 3600 + step) for step in range(6, 60)))
    run.look(NOW + 3660)
    assert run.stalled(NOW + 3660 + 7000) is None
    assert run.stalled(NOW + 3660 + 9000) is not None


def test_a_fast_run_is_not_said_to_stall_for_a_short_validation(file):
    run = Follower(file.parent)
    run.look(NOW)
    append(file, *(point(5 + step, NOW + step / 100) for step in range(300)))
    run.look(NOW + 3)
    assert run.stalled(NOW + 3 + following.AT_LEAST - 1) is None
    assert run.stalled(NOW + 3 + 2 * 1000) is not None


def test_the_first_curve_that_is_nan_is_named_and_the_machine_s_load_is_none(file):
    run = Follower(file.parent)
    append(file, point(5, NOW, "vitals/gpu_percent", math.nan), point(6, NOW, "val/loss", math.inf))
    run.look(NOW)
    assert run.nan is None
    append(file, point(7, NOW, "val/loss", math.nan), point(8, NOW, "train/loss", math.nan))
    run.look(NOW)
    assert run.nan == ("val/loss", 7)


def test_a_torn_record_is_read_once_it_is_whole(file):
    run = Follower(file.parent)
    whole = point(5, NOW, "val/loss", math.nan)
    append(file, whole[:20])
    run.look(NOW)
    assert run.nan is None
    append(file, whole[20:])
    run.look(NOW)
    assert run.nan == ("val/loss", 5)


def test_garbage_a_pipe_and_a_folder_that_is_gone_end_nothing(file, tmp_path):
    import os

    append(file, b"\xff" * 200)
    os.mkfifo(tmp_path / "events.out.tfevents.2.pipe")
    run = Follower(tmp_path)
    for _ in range(3):
        run.look(NOW)
    assert run.stalled(NOW + 1e6) is None or run.moved is not None
    Follower(tmp_path / "gone").look(NOW)
