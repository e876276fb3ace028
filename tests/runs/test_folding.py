"""Figures by hand: the sample 1, 2, 6 has the mean 3 and the standard deviation sqrt((4 + 1 + 9) / 2)."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from runs_folder import call, make, points
from trainlab.cli.runs import app
from trainlab.runs import folding, listing, ranking
from trainlab.runs.compare.comparison import CompareConfig, compare

GIT = {"commit": "c" * 40, "dirty": False}
SPREAD = math.sqrt(7)


def add(logs, name, seed, loss=None, *, margin=3.0, recorded=None, **fields):
    """Make a run of news whose settings hold the seed, or that records it alone; a later one is older."""
    config = {"margin": margin} | ({} if seed is None else {"seed": seed})
    figures = {} if loss is None else {"best": points(val_loss=loss), "last": points(val_loss=2 * loss)}
    number = len(list(logs.glob("*/*")))
    fields |= {"seed": recorded}
    fields = {"data": {"sha256": "a" * 64}, "git": GIT, "config": config} | figures | fields
    return make(logs, f"news/{name}", minutes_ago=number, **fields)


def folds(logs):
    return folding.fold(listing.rows(logs))


def one(logs):
    (found,) = folds(logs)
    return found


@pytest.fixture
def logs(tmp_path):
    """Three seeds of one setting."""
    for name, seed, loss in (("a", 1, 1.0), ("b", 2, 2.0), ("c", 3, 6.0)):
        add(tmp_path, name, seed, loss)
    return tmp_path


def test_runs_that_differ_by_the_seed_alone_become_their_mean_and_spread(logs):
    found = one(logs)
    assert (found.n, found.seeds, found.runs) == (3, [1, 2, 3], ["a", "b", "c"])
    assert (found.best, found.last) == ({"val/loss": 3.0}, {"val/loss": 6.0})
    assert found.best_sd == {"val/loss": pytest.approx(SPREAD)}
    assert found.last_sd == {"val/loss": pytest.approx(2 * SPREAD)}
    assert (found.status, found.seconds, found.config) == ("3 finished", 200.0, {"margin": 3.0})


@pytest.mark.parametrize(
    "other",
    [
        {"margin": 5.0},
        {"data": {"sha256": "b" * 64}},
        {"config": {"margin": 3.0, "seed": 4, "split": "item"}},
        {"git": {"commit": "d" * 40, "dirty": False}},
        {"git": {"commit": "c" * 40, "dirty": True}},
        {"looks": True},
    ],
)
def test_another_setting_data_split_or_code_stands_apart(logs, other):
    add(logs, "other", 4, 9.0, **other)
    assert sorted(each.n for each in folds(logs)) == [1, 3]


def test_the_same_setting_of_another_experiment_stands_apart(logs):
    make(logs, "words/a", config={"margin": 3.0, "seed": 4}, data={"sha256": "a" * 64}, git=GIT)
    assert {each.experiment: each.n for each in folds(logs)} == {"news": 3, "words": 1}


def test_runs_without_a_seed_stand_alone(tmp_path):
    add(tmp_path, "a", None, 1.0)
    add(tmp_path, "b", None, 2.0)
    add(tmp_path, "c", None, 3.0, config={}, recorded=1)  # foreign runs with no settings are no repetitions
    add(tmp_path, "d", None, 4.0, config={}, recorded=2)
    assert [each.best["val/loss"] for each in folds(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_a_seed_that_is_no_setting_counts_too(tmp_path):
    add(tmp_path, "a", None, 1.0, recorded=1)
    add(tmp_path, "b", None, 2.0, recorded=2)
    assert one(tmp_path).seeds == [1, 2]


def test_a_row_of_one_run_is_that_run(tmp_path):
    add(tmp_path, "a", 1, 4.0, status="failed", reason="ValueError: no")
    found = one(tmp_path)
    assert (found.n, found.status, found.reason, found.best) == (
        1,
        "failed",
        "ValueError: no",
        {"val/loss": 4},
    )
    assert (found.best_sd, found.config) == ({}, {"margin": 3.0, "seed": 1})


def test_of_unfinished_runs_the_status_tells_and_the_mean_does_not(logs):
    add(logs, "d", 4, 90.0, status="failed")
    add(logs, "e", 5, 90.0, status="interrupted")
    found = one(logs)
    assert (found.n, found.best["val/loss"], found.seeds) == (3, 3.0, [1, 2, 3])
    assert found.status == "3 finished, 1 failed, 1 interrupted"
    assert found.runs == ["a", "b", "c", "d", "e"]


def test_where_none_has_finished_all_count(tmp_path):
    add(tmp_path, "a", 1, 1.0, status="failed")
    add(tmp_path, "b", 2, 3.0, status="failed")
    found = one(tmp_path)
    assert (found.n, found.status, found.best) == (2, "2 failed", {"val/loss": 2.0})


def test_of_one_seed_the_newest_run_that_finished_counts(logs):
    add(logs, "older", 1, 100.0)
    assert (one(logs).n, one(logs).best) == (3, {"val/loss": 3.0})
    assert one(logs).status == "4 finished"


def test_a_run_without_the_metric_counts_for_the_others(logs):
    accuracy = points(val_accuracy=0.5)
    add(logs, "d", 4, best=accuracy, last=accuracy)
    found = one(logs)
    assert (found.n, found.counts) == (4, {"val/loss": 3, "val/accuracy": 1})
    assert found.best == {"val/loss": 3.0, "val/accuracy": 0.5}
    assert found.best_sd == {"val/loss": pytest.approx(SPREAD)}
    assert "3 ± 2.6, n 3" in call(logs, "--group")


def test_a_metric_that_is_not_a_number_makes_no_mean_of_the_last_and_counts_for_no_best(logs):
    add(logs, "d", 4, last=points(val_loss=math.nan))
    found = one(logs)
    assert (found.best, found.counts) == ({"val/loss": 3.0}, {"val/loss": 3})
    assert math.isnan(found.last["val/loss"])


def test_bests_of_contrary_directions_are_not_averaged(tmp_path):
    for name, seed, way in (("a", 1, "min"), ("b", 2, "max")):
        figures = {"best": {"own": {"value": 1.0, "step": 1}}, "last": {"own": {"value": 1.0, "step": 1}}}
        add(tmp_path, name, seed, **figures, directions={"own": way})
    assert (one(tmp_path).best, one(tmp_path).last) == ({}, {"own": 1.0})


def test_ranks_count_within_one_data_and_split(logs):
    for seed, loss in ((1, 0.1), (2, 0.3)):
        add(logs, f"other{seed}", seed, loss, data={"sha256": "b" * 64})
    add(logs, "margin", 1, 2.5, margin=5.0)
    found = ranking.ranked(folds(logs), "val/loss")
    assert [(each.run, each.best["val/loss"]) for each in found] == [
        ("margin", 2.5),
        ("a", 3.0),
        ("other1", pytest.approx(0.2)),
    ]


def test_a_sweep_is_named_where_all_runs_belong_to_it(tmp_path):
    for seed in (1, 2):
        add(tmp_path, f"trial{seed}", seed, 1.0, sweep={"name": "s", "trial": 7})
    assert (one(tmp_path).sweep, one(tmp_path).trial) == ("s", 7)
    add(tmp_path, "alone", 3, 1.0)
    assert (one(tmp_path).sweep, one(tmp_path).trial) == (None, None)


def test_the_command_prints_means_and_sorts_by_them(logs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    add(logs, "d", 1, 2.9, margin=5.0)
    lines = call(logs, "--group", "--sort", "val/loss").splitlines()
    assert lines[0].split() == ["run", "n", "status", "margin", "seed", "val/loss", "age", "duration"]
    assert lines[1].split()[:2] == ["d", "1"]
    assert lines[2].startswith("a +2  3  3 finished")
    assert "3 ± 2.6" in lines[2]


def test_the_command_writes_means_and_spreads_as_csv_json_and_markdown(logs):
    words = ("--group", "--columns", "run,n,val/loss,best_sd.val/loss,seeds")
    (found,) = json.loads(call(logs, *words, "--format", "json"))
    assert found == {
        "run": "a",
        "n": 3,
        "val/loss": 3.0,
        "best_sd.val/loss": pytest.approx(SPREAD),
        "seeds": [1, 2, 3],
    }
    whole = json.loads(call(logs, "--group", "--format", "json"))[0]
    assert (whole["n"], whole["counts"], whole["runs"]) == (3, {"val/loss": 3}, ["a", "b", "c"])
    head, row = call(logs, "--group", "--format", "csv").splitlines()
    assert {"n", "seeds", "code", "best_sd.val/loss", "last_sd.val/loss"} <= {*head.split(",")}
    assert "a,3 finished" in row
    assert "| a | 3 | 3 ± 2.6 |" in call(
        logs, "--group", "--columns", "run,n,val/loss", "--format", "markdown"
    )


def test_a_filter_chooses_runs_and_what_it_leaves_out_of_a_mean_is_said(logs):
    done = CliRunner().invoke(
        app, ["--logs", str(logs), "--group", "--where", "val/loss<3", "--format", "json"]
    )
    assert json.loads(done.stdout)[0]["best"] == {"val/loss": 1.5}
    assert "leaves out 1 runs of these settings" in done.stderr
    whole = CliRunner().invoke(app, ["--logs", str(logs), "--group", "--where", "margin=3"])
    assert "leaves out" not in whole.stderr


def test_the_leaders_of_the_notebook_and_the_report_are_folded_where_there_are_seeds(logs):
    add(logs, "d", 1, 5.0, margin=5.0)
    leaders = compare(CompareConfig(), logs).leaders()
    assert list(leaders["run"]) == ["a +2", "d"]
    assert list(leaders["n"]) == [3, 1]
    assert leaders["sd"].iloc[0] == pytest.approx(SPREAD)
    (logs / "report").mkdir()
    call(logs, "report", "-o", logs / "report" / "report.html")
    assert "differ by the seed alone" in (logs / "report" / "report.html").read_text()


def test_without_repetitions_the_leaders_are_runs(tmp_path):
    for seed, margin in ((1, 3.0), (2, 5.0)):
        add(tmp_path, f"m{margin:.0f}", seed, margin, margin=margin)
    leaders = compare(CompareConfig(), tmp_path).leaders()
    assert list(leaders["run"]) == ["m3", "m5"]
    assert {"sd", "n"}.isdisjoint(leaders.columns)
