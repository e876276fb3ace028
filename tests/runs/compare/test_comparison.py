from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tensorboardX import SummaryWriter

from compared_runs import record_foreign, row
from runs_folder import make, points
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.runs import plots
from trainlab.runs.compare import XAxis
from trainlab.runs.compare.comparison import CompareConfig, compare, comparison


@pytest.fixture
def logs(tmp_path):
    """A run of news with metrics, an older one of words, the newest of all without any."""
    loss = {"best": points(val_loss=0.5, train_loss=0.1), "last": points(val_loss=0.6, train_loss=0.1)}
    make(tmp_path, "news/a", minutes_ago=5, config={"margin": 3.0}, metrics=["val/loss"], **loss)
    make(tmp_path, "words/b", minutes_ago=9, best=points(f1=0.5), last=points(f1=0.4))
    make(tmp_path, "started/c", minutes_ago=1, status="running")
    return tmp_path


def chosen(logs, **settings):
    compared = compare(CompareConfig.parse(settings), logs)
    return [row.run for row in compared.rows], compared.metric, compared.tags


def test_by_default_the_newest_runs_experiment_and_its_main_metric_are_compared(logs):
    assert chosen(logs) == (["a"], "val/loss", ["val/loss", "train/loss"])


def test_an_experiment_all_of_them_or_a_filter_can_be_asked_for(logs):
    assert chosen(logs, experiment="words") == (["b"], "f1", ["f1"])
    assert chosen(logs, experiment="all")[0] == ["c", "a", "b"]
    assert chosen(logs, experiment="all", where="margin<5 or f1>0.4")[0] == ["a", "b"]
    assert chosen(logs, metric="train/loss", tags="val/loss, train/loss")[1:] == (
        "train/loss",
        ["val/loss", "train/loss"],
    )


def test_the_trials_of_a_sweep_alone_can_be_asked_for_whatever_is_newest(logs):
    make(logs, "news/trial", minutes_ago=7, last=points(val_loss=0.5), sweep={"name": "s", "trial": 0})
    assert chosen(logs, sweep="s")[0] == ["trial"]
    with pytest.raises(UserError, match="no such sweep"):
        chosen(logs, sweep="s", experiment="words")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sweep": "s"}, "no such sweep"),
        ({"experiment": "nws"}, "Did you mean 'news'"),
        ({"where": "margn>3"}, "Did you mean 'margin'"),
        ({"metric": "val/los"}, "Did you mean 'val/loss'"),
        ({"tags": "val/loss,trainloss"}, "Did you mean 'train/loss'"),
        ({"smooth": "1"}, "less than 1"),
        ({"best": 0}, "greater than or equal to 1"),
        ({"x": "hour"}, "'step', 'time', 'epoch' or 'examples'"),
    ],
)
def test_a_mistake_names_what_was_meant(logs, settings, said):
    with pytest.raises(UserError, match=said):
        chosen(logs, **settings)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_without_runs_every_table_is_empty_and_every_picture_says_so(tmp_path, name):
    logs = tmp_path / name
    logs.mkdir()
    if name == "none":
        make(logs, "started/c", status="running")  # no metrics yet
    compared = compare(CompareConfig.parse({}), logs)
    assert "No run with metrics" in str(compared)
    for table in (compared.table(), compared.leaders(), compared.differences(), compared.cost()):
        assert table.empty
    assert compared.left_out() == []
    for picture in (compared.curves(), compared.parallel(), compared.importance()):
        assert picture.spec["mark"]["text"]


def test_one_run_and_a_foreign_one_alone_can_be_looked_at(tmp_path):
    record_foreign(tmp_path / "theirs", [3.0, 2.0, 2.5])
    compared = compare(CompareConfig.parse({}), tmp_path)
    assert str(compared) == "1 run, 1 with val/loss, lower is better."
    assert list(compared.leaders()["val/loss"]) == [2.0]
    assert compared.curves().spec["datasets"]
    assert compared.differences().empty


def test_of_too_many_runs_the_best_are_drawn_and_the_others_counted():
    rows = [row(f"r{index:02}", loss=float(index)) for index in range(14)]
    compared = comparison([*rows, row("without")], CompareConfig.parse({}))
    assert [each.run for each in compared.drawn] == [f"r{index:02}" for index in range(10)]
    assert compared.left_out() == [
        "1 of 15 runs have no val/loss.",
        "Of 14 runs with curves the best 10 are drawn.",
    ]


def test_all_runs_that_were_named_are_drawn():
    rows = [row(f"r{index:02}", loss=float(index)) for index in range(14)]
    assert len(comparison(rows, CompareConfig.parse({}), most=14).drawn) == 14


def test_runs_that_cannot_be_placed_along_the_axis_are_named(tmp_path):
    record_foreign(tmp_path / "theirs", [3.0, 2.0])
    said = compare(CompareConfig.parse({"x": XAxis.examples}), tmp_path).left_out()
    assert said == [
        "Neither a batch size nor a tag such as train/examples is recorded: theirs can't be drawn over the "
        "examples seen."
    ]


def on(sha256, name, loss, **config):
    known = {"experiment": "news", "run": name, "status": "finished", "started": datetime.now(UTC)}
    data = {"rows": 3, "sha256": sha256, "path": "/data/sample"}
    return row(name, loss=loss, config=config, record=record.Record(**known, data=data))


def test_the_best_are_ranked_within_the_same_data_and_split():
    rows = [on("a" * 64, "new", 0.5, lr=1.0, split="item"), on("a" * 64, "old", 0.4, lr=2.0, split="item")]
    rows += [on("b" * 64, "other", 0.01, lr=3.0, split="item"), on("a" * 64, "leak", 0.02, split="triplet")]
    compared = comparison(rows, CompareConfig.parse({}))
    leaders = compared.leaders().reset_index()
    assert list(zip(leaders["rank"], leaders["run"], strict=True)) == [
        (1, "old"),
        (2, "new"),
        (1, "other"),
        (1, "leak"),
    ]
    assert list(leaders["data"])[1:3] == ["sha256 aaaaaaaa, split item", "sha256 bbbbbbbb, split item"]
    assert "are ranked apart: 2 with sha256 aaaaaaaa, split item; 1 with" in str(compared)
    assert "What follows of settings is about the first 2." in str(compared)
    assert [each.run for each in compared.comparable] == ["old", "new"]
    assert [axis.name for axis in plots.axes(compared.comparable, "val/loss")[1]] == ["lr", "val/loss"]


def test_the_same_data_in_another_place_is_the_same(tmp_path):
    rows = [on("a" * 64, "here", 0.5), on("a" * 64, "there", 0.4)]
    assert rows[1].record is not None
    rows[1].record.data = {"rows": 3, "sha256": "a" * 64, "path": "/else/where.tsv"}
    compared = comparison(rows, CompareConfig.parse({}))
    assert str(compared) == "2 runs, 2 with val/loss, lower is better."
    assert "data" not in compared.leaders()


def test_without_a_direction_none_is_called_the_best_until_it_is_said(tmp_path):
    with SummaryWriter(str(tmp_path / "news" / "a")) as writer:
        for step in range(3):
            writer.add_scalar("val/score", step, step)
    compared = compare(CompareConfig.parse({}), tmp_path)
    assert (compared.metric, compared.ranked, len(compared.leaders())) == ("val/score", [], 0)
    assert "no run gives whether less or more of it is better. So none is called the best" in str(compared)
    assert set(compared.points["tag"]) == {"val/score"}
    said = compare(CompareConfig.parse({"metric": "val/score", "mode": "max"}), tmp_path)
    assert str(said) == "1 run, 1 with val/score, higher is better."
    assert list(said.leaders()["val/score"]) == [2.0]
    with pytest.raises(UserError, match="mode=max says nothing without the metric"):
        compare(CompareConfig.parse({"mode": "max"}), tmp_path)


def test_points_without_steps_are_all_drawn_and_it_is_said(tmp_path):
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        for number in range(20):
            writer.add_scalar("val/loss", 1 + (number - 7) ** 2)
    compared = compare(CompareConfig.parse({}), tmp_path)
    assert len(compared.points) == 20
    assert compared.left_out() == [
        "Logged without steps, and drawn at one: theirs. Over time (x=time) the points lie apart."
    ]
    assert compare(CompareConfig.parse({"x": XAxis.time}), tmp_path).left_out() == []


def test_runs_of_opposite_directions_are_not_ranked():
    rows = [row("a", best={"f": 1.0}, last={"f": 1.0}, directions={"f": "min"})]
    rows += [row("b", best={"f": 2.0}, last={"f": 2.0}, directions={"f": "max"})]
    compared = comparison(rows, CompareConfig.parse({}))
    assert compared.ranked == []
    assert "some of its runs say that less is better, others more." in str(compared)
