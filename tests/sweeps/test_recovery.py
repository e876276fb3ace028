"""A study made anew from the folders of its runs."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

import postgresql
from trainlab.run import lock
from trainlab.run.writing import EventFile
from trainlab.sweeps import database, definition, objective
from trainlab.sweeps.queue import Owner, Queue, rebuild

ME = Owner("host", 1, 1.0, "0", "mine")
LISTS = {"margin": [1, 3, 5], "mining": [True, False]}
RANGES = {"rate": {"low": 1e-5, "high": 1e-3, "log": True}, "layers": {"low": 1, "high": 9}}


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def ordered(tmp_path, logs):
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")

    def made(**fields):
        known = {"name": "margins", "program": str(program), "goal": "val/score", "mode": "max"}
        known |= {"method": "grid", "trials": 20, "space": LISTS} | fields
        definition.create(definition.Definition(**known), logs)
        return definition.load("margins", logs)

    return made


def run(logs, name, trial, status="finished", **fields):
    """Write a run's record as its sweep has it written."""
    folder = logs / "news" / name
    folder.mkdir(parents=True)
    mark = {"name": "margins", "trial": trial, "attempts": 1} | fields.pop("sweep", {})
    known = {"experiment": "news", "run": name, "status": status, "started": datetime.now(UTC).isoformat()}
    (folder / "run.json").write_text(json.dumps(known | {"sweep": mark} | fields))
    return folder


def value_of(folder):
    """The value stands in the test's own file."""
    place = folder / "value"
    return float(place.read_text()) if place.exists() else None


def told(logs, name, trial, value, **fields):
    (run(logs, name, trial, **fields) / "value").write_text(str(value))


def logged(folder, values):
    """Write a run's curve of the goal."""
    file = EventFile(folder)
    for step, value in enumerate(values):
        file.add_scalar("val/score", value, step)
    file.close()


def states(queue):
    return {trial.number: trial.state for trial in queue.trials()}


def test_what_ended_has_ended_and_the_rest_waits_with_its_runs(logs, ordered):
    known = ordered()
    told(logs, "a", 0, 0.5, config={"margin": 1, "mining": True})
    run(logs, "b", 1, "failed", reason="exit code 1", config={"margin": 1, "mining": False})
    told(logs, "c", 2, 0.1, status="interrupted", reason="pruned at validation 3", sweep={"attempts": 2})
    run(logs, "d", 3, "interrupted", reason="stopped by SIGTERM", sweep={"attempts": 3})
    run(logs, "e", 4, "running")  # by nobody: it died
    run(logs, "f", 0, sweep={"name": "another"})
    queue = rebuild(known, logs, value_of)
    trials = queue.trials()
    assert [trial.state for trial in trials] == [
        "finished",
        "failed",
        "pruned",
        "waiting",
        "waiting",
        "waiting",
    ]
    assert [trial.value for trial in trials] == [0.5, None, 0.1, None, None, None]
    assert [trial.reason for trial in trials[:3]] == ["", "exit code 1", "pruned at validation 3"]
    assert [trial.runs for trial in trials[2:]] == [("news/c",), ("news/d",), ("news/e",), ()]
    assert [trial.attempts for trial in trials[2:5]] == [2, 3, 1]
    assert trials[4].settings == {"margin": 5, "mining": True}
    taken = queue.take(ME)
    assert (taken.number, taken.runs, taken.attempts) == (3, ("news/d",), 4)


def test_a_run_that_goes_on_still_is_nobody_s_and_can_be_adopted(logs, ordered):
    known = ordered()
    held = lock.hold(run(logs, "a", 0, "running"))
    queue = rebuild(known, logs, value_of)
    trial = queue.running()[0]
    assert (trial.number, trial.owner, trial.runs) == (0, None, ("news/a",))
    assert queue.adopt(0, None, ME)
    assert queue.finish(0, ME, "finished", 1.0)
    held.release()


def test_settings_of_ranges_are_those_of_the_run_and_teach_the_sampler(logs, ordered):
    known = ordered(method="tpe", space=RANGES, trials=3)
    told(logs, "a", 0, 0.5, config={"rate": 1e-4, "layers": 4, "seed": 1})
    run(logs, "b", 1, "interrupted", config={"rate": 0.0005, "layers": 7})
    queue = rebuild(known, logs, value_of)
    assert [trial.settings for trial in queue.trials()] == [
        {"rate": 1e-4, "layers": 4},
        {"rate": 0.0005, "layers": 7},
        {},
    ]
    assert type(queue.trials()[0].settings["layers"]) is int
    assert queue.take(ME).settings == {"rate": 0.0005, "layers": 7}
    assert queue.take(ME).settings.keys() == RANGES.keys()


@pytest.mark.parametrize(
    "config",
    [{}, {"rate": "NaN", "layers": None}, {"rate": 9.0, "layers": 10**30}, {"rate": [1], "layers": {}}],
)
def test_settings_that_are_none_of_the_space_are_left_out(logs, ordered, config):
    known = ordered(method="random", space=RANGES, trials=1)
    told(logs, "a", 0, 0.5, config=config)
    trial = rebuild(known, logs, value_of).trials()[0]
    assert (trial.state, trial.value, trial.settings) == ("finished", 0.5, {})


def test_of_several_seeds_the_mean_counts_once_all_have_finished(logs, ordered):
    known = ordered(seeds=2, seed=5, trials=2)
    told(logs, "a-s1", 0, 0.5, sweep={"seed": 6})
    told(logs, "a-s0", 0, 0.1, sweep={"seed": 5})
    told(logs, "b-s0", 1, 0.1, sweep={"seed": 5})
    first, second = rebuild(known, logs, value_of).trials()
    assert (first.state, first.value, first.runs) == ("finished", 0.3, ("news/a-s0", "news/a-s1"))
    assert (second.state, second.value, second.runs) == ("waiting", None, ("news/b-s0",))


def test_of_two_runs_of_one_trial_the_later_counts_and_both_are_kept(logs, ordered):
    known = ordered(trials=1)
    run(logs, "a", 0, "failed", reason="no checkpoint")
    told(logs, "b", 0, 0.7)
    trial = rebuild(known, logs, value_of).trials()[0]
    assert (trial.state, trial.value, trial.runs) == ("finished", 0.7, ("news/a", "news/b"))


def test_trials_beyond_those_ordered_are_kept(logs, ordered):
    known = ordered(method="random", space=RANGES, trials=2)
    told(logs, "a", 3, 0.5)
    assert states(rebuild(known, logs, value_of)) == {0: "waiting", 1: "waiting", 2: "waiting", 3: "finished"}


@pytest.mark.parametrize(
    "sweep", [5, {"name": "margins", "trial": -1}, {"name": "margins", "trial": 1 << 40}]
)
def test_a_record_that_lies_about_its_sweep_is_passed_over(logs, ordered, sweep):
    known = ordered(trials=1)
    folder = run(logs, "a", 0)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"sweep": sweep}))
    assert states(rebuild(known, logs, value_of)) == {0: "waiting"}


def test_the_old_database_is_put_aside_whole(logs, ordered):
    known = ordered()
    old = Queue.create(known, logs=logs)
    old.take(ME)
    rebuild(known, logs, value_of).close()
    place = logs / ".sweeps/margins"
    aside = list(place.glob("study-*.db"))
    assert len(aside) == 1
    connection = sqlite3.connect(aside[0])
    query = "SELECT count(*) FROM trials WHERE state = 'RUNNING'"
    assert connection.execute(query).fetchone() == (1,)
    assert Queue.open(known, logs=logs).running() == []


@pytest.mark.parametrize("damage", [b"no database" * 999, None])
def test_a_damaged_or_missing_database_is_made_anew(logs, ordered, damage):
    known = ordered()
    told(logs, "a", 0, 0.5)
    path = logs / ".sweeps/margins" / database.FILE
    if damage:
        path.write_bytes(damage)
    queue = rebuild(known, logs, value_of)
    assert states(queue)[0] == "finished"
    assert [each.read_bytes() for each in path.parent.glob("study-*.db")] == [damage] * bool(damage)


def test_what_a_rebuild_left_that_was_killed_is_in_nobody_s_way(logs, ordered):
    known = ordered()
    new = logs / ".sweeps/margins" / f"{database.FILE}.new"
    new.write_bytes(b"half of it")
    assert len(rebuild(known, logs, value_of).trials()) == 6
    assert not new.exists()


def test_on_a_server_the_old_study_gets_another_name(logs, ordered, monkeypatch, request, free_port):
    if not postgresql.programs():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = postgresql.Server(free_port())
    request.addfinalizer(server.remove)
    monkeypatch.setenv("PGPASSWORD", postgresql.PASSWORD)
    known = ordered(at=server.at)
    old = Queue.create(known, logs=logs)
    old.take(ME)
    told(logs, "a", 1, 0.5)
    queue = rebuild(known, logs, value_of)
    assert states(queue)[1] == "finished"
    assert [trial.number for trial in old.running()] == [0]
    assert states(Queue.open(known, logs=logs)) == states(queue)
    queue.close()
    old.close()


def test_settings_are_those_that_the_sweep_has_given_whatever_the_run_records(logs, ordered):
    known = ordered(method="random", space=RANGES)
    given = {"settings": {"rate": "0.00025", "layers": "7"}}
    told(logs, "a", 0, 0.5, config={"rate": "0.1", "layers": [1]}, sweep=given)
    assert rebuild(known, logs, value_of).trials()[0].settings == {"rate": 0.00025, "layers": 7}


def test_a_run_that_was_killed_waits_again_and_one_that_ended_with_nan_is_pruned(logs, ordered, monkeypatch):
    known = ordered()
    told(logs, "a", 0, 0.6)
    run(logs, "b", 1, "failed", reason="train.py died (signal 9)")
    curve = SimpleNamespace(values=lambda: [0.6, float("nan")])
    monkeypatch.setattr(objective, "Goal", lambda folder, tag: curve)
    trials = rebuild(known, logs, value_of).trials()
    assert (trials[0].state, trials[0].value) == ("pruned", 0.6)
    assert trials[0].reason == "pruned at validation 2: val/score is NaN"
    assert trials[1].state == "waiting"


def test_what_a_pruner_compares_is_made_anew_from_the_curves(logs, ordered):
    known = ordered(method="random", space=RANGES, trials=4, prune="median", seeds=2, seed=5)
    folders = [run(logs, f"{name}-s0", number, sweep={"seed": 5}) for number, name in enumerate("ab")]
    folders.append(run(logs, "b-s1", 1, sweep={"seed": 6}))
    for folder in folders:
        logged(folder, [len(folder.name) + step / 1000 for step in range(120)])
    queue = rebuild(known, logs, value_of)
    with queue._study.engine.connect() as connection:
        query = "SELECT number, step, intermediate_value FROM trials JOIN trial_intermediate_values "
        reports = connection.exec_driver_sql(f"{query} USING (trial_id) ORDER BY number, step").all()
    each = [*range(100), 100, 110]
    assert [(number, step) for number, step, _ in reports] == [(n, step) for n in (0, 1) for step in each]
    assert reports[-1][2] == pytest.approx(4.11, abs=1e-6)


def test_trials_after_a_rebuild_are_pruned_by_those_before_it(logs, ordered):
    known = ordered(method="random", space=RANGES, trials=8, prune="median")
    for number in range(6):
        folder = run(logs, f"r{number}", number)
        (folder / "value").write_text("0.9")
        logged(folder, [0.9] * 3)
    queue = rebuild(known, logs, value_of)
    number = queue.take(ME).number
    queue.report(number, 0, 0.1)
    assert queue.should_prune(number)
