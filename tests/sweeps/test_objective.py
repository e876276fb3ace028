"""The goal's values, read as they come."""

from __future__ import annotations

import math

import pytest

import trainlab
from trainlab.run.tfrecords import record
from trainlab.runs import listing
from trainlab.sweeps import objective


@pytest.fixture
def run(own_logs):
    with trainlab.Run("news", {"lr": 0.1}, monitor=False) as made:
        yield made


def flushed(run):
    run.update()
    return run.folder


def test_new_values_are_read_behind_those_known_with_other_tags_between(run):
    goal = objective.Goal(run.folder, "val/loss")
    assert goal.values() == []
    for step in (3, 7, 8):
        run.log({"train/loss": 9.0, "val/loss": step / 4, "val/loss_of_another": 5.0}, step)
    flushed(run)
    assert goal.values() == [0.75, 1.75, 2.0]
    run.log({"val/loss": math.nan}, 9)
    flushed(run)
    assert math.isnan(goal.values()[3])
    assert goal.values()[:3] == [0.75, 1.75, 2.0]


def test_what_is_known_is_not_read_again(run, monkeypatch):
    goal = objective.Goal(run.folder, "val/loss")
    for step in range(100):
        run.log({"val/loss": 1.0, "train/loss": 2.0}, step)
    flushed(run)
    assert len(goal.values()) == 100
    monkeypatch.setattr(objective, "blocks", lambda file: pytest.fail(f"read from {file.tell()}"))
    assert len(goal.values()) == 100


def test_a_resume_takes_back_what_the_table_leaves_out(run):
    goal = objective.Goal(run.folder, "val/loss")
    for step in range(4):
        run.log({"val/loss": 4.0 - step}, step)
    flushed(run)
    assert goal.values() == [4.0, 3.0, 2.0, 1.0]
    run.rewind(2)
    run.log({"val/loss": 2.5}, 2)
    flushed(run)
    assert goal.values() == [4.0, 3.0, 2.5]


def test_a_torn_record_waits_for_its_end(run, tmp_path):
    run.log({"val/loss": 1.0}, 0)
    flushed(run)
    run.log({"val/loss": 2.0}, 1)
    (file,) = flushed(run).glob("*tfevents*")
    content = file.read_bytes()
    copy = tmp_path / file.name
    copy.write_bytes(content[:-5])
    goal = objective.Goal(tmp_path, "val/loss")
    assert goal.values() == [1.0]
    copy.write_bytes(content)
    assert goal.values() == [1.0, 2.0]


def test_a_file_of_something_else_and_a_link_are_passed(run, tmp_path):
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"no events at all" * 9)
    (tmp_path / "events.out.tfevents.2.x").symlink_to("/dev/zero")
    assert objective.Goal(tmp_path, "val/loss").values() == []


def test_scalar_tensors_count_where_a_tag_s_first_event_alone_says_what_they_are(tmp_path):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.util import tensor_util

    said = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    with (tmp_path / "events.out.tfevents.1.x").open("wb") as file:
        for step, metadata in enumerate((said, None)):
            tensor = tensor_util.make_tensor_proto(0.5 - step / 4)
            value = Summary.Value(tag="val/loss", tensor=tensor, metadata=metadata)
            event = Event(wall_time=1.7e9, step=step, summary=Summary(value=[value]))
            file.write(record(event.SerializeToString()))
    assert objective.Goal(tmp_path, "val/loss").values() == [0.5, 0.25]


def test_the_value_is_the_one_that_the_table_of_runs_ranks_by(run):
    for step, value in enumerate((0.3, 0.1, 0.2)):
        run.log({"val/loss": value, "val/odd": value}, step)
    run.finish()
    (row,) = listing.rows()
    assert objective.value(run.folder, "val/loss", "min") == row.best["val/loss"] == 0.1
    assert objective.value(run.folder, "val/odd", "max") == pytest.approx(0.3)
    assert objective.value(run.folder, "val/other", "max") is None
    assert {"val/loss", "val/odd"} <= set(objective.logged(run.folder))


def test_no_number_is_the_best_of_none_that_is_finite():
    assert objective.best([math.nan, 2.0, 1.0], "min") == 1.0
    assert objective.best([math.inf, 2.0], "max") == 2.0
    assert objective.best([math.nan], "min") is None
