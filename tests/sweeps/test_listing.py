"""All sweeps side by side."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest

from swept import STEER, definition, forty, owner, trial
from trainlab.sweeps import definition as definitions
from trainlab.sweeps import listing, owners
from trainlab.sweeps.listing import Listed
from trainlab.sweeps.queue import Queue


def here(**fields):
    return replace(owners.own("cpu-0", owners.token()), **fields)


@pytest.mark.parametrize(
    ("trials", "state"),
    [
        ([trial(0, "running", owner=here()), trial(1, "waiting")], "running here"),
        ([trial(0, "running", owner=here(started=1.0))], "stopped"),
        ([trial(0, "running", owner=here(token="before-the-boot"))], "stopped"),
        ([trial(0, "waiting"), trial(1)], "stopped"),
        ([trial(0), trial(1, "pruned"), trial(2, "failed")], "done"),
    ],
)  # fmt: skip
def test_whether_a_sweep_goes_on(trials, state):
    assert listing.state(Listed("a", definition(), trials)) == state


def test_trials_of_other_hosts_go_on_as_far_as_can_be_seen_from_here():
    trials = [trial(each, "running", owner=owner(f"h{each}")) for each in (1, 0)]
    assert listing.state(Listed("a", definition(at="head"), trials)) == "running on h0, running on h1"


def test_a_sweep_is_a_line_with_its_best_value_and_age():
    shown = str(listing.listing([Listed("margins", definition(at="head"), forty(), time.time() - 7300)]))
    head, line = (each.split("  ") for each in shown.splitlines())
    assert [each.strip() for each in head if each] == [
        "sweep", "state", "trials", "finished", "pruned", "failed", "running", "waiting", "best", "goal",
        "age",
    ]  # fmt: skip
    assert [each.strip() for each in line if each] == [
        "margins", "running on box", "40", "20", "6", "1", "2", "11", "1", "val/loss", "2 h",
    ]  # fmt: skip


def test_a_broken_sweep_hides_no_other_and_steers_nothing():
    shown = str(listing.listing([Listed(STEER, fault=STEER), Listed("a", definition(), [trial(0)])]))
    assert "\x1b" not in shown
    broken, whole, line = shown.splitlines()[1:]
    assert "unreadable" in broken
    assert "done" in whole
    assert "can't be read: ?" in line
    assert max(map(len, shown.splitlines()[:-1])) < 120, "the table is no wider for it"


def test_json_says_the_same():
    (found,) = json.loads(listing.as_json([Listed("margins", definition(), forty(), 5.0)]))
    assert found["sweep"] == "margins"
    assert found["by_state"] == {"running": 2, "finished": 20, "pruned": 6, "failed": 1, "waiting": 11}
    assert (found["best"], found["goal"], found["created"]) == (1.0, "val/loss", 5.0)


@pytest.fixture
def logs(tmp_path):
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")
    for name in ("first", "second"):
        known = definition(name=name, program=str(program), trials=3)
        definitions.create(known, tmp_path / "logs")
        Queue.create(known, logs=tmp_path / "logs").close()
        os.utime(tmp_path / "logs" / ".sweeps" / name / "train.py", (1e9, 1e9 + (name == "second")))
    return tmp_path / "logs"


def test_all_sweeps_are_found_the_newest_first(logs):
    assert [(each.name, len(each.trials), each.fault) for each in listing.found(logs)] == [
        ("second", 3, ""),
        ("first", 3, ""),
    ]
    assert listing.found(logs)[0].created == 1e9 + 1


def test_a_sweep_that_can_t_be_read_says_why(logs):
    (logs / ".sweeps" / "first" / "sweep.json").write_text("[]")
    (logs / ".sweeps" / "empty").mkdir()
    (logs / ".sweeps" / "a file").write_text("")
    found = {each.name: each for each in listing.found(logs)}
    assert found.keys() == {"first", "second", "empty"}
    assert "sweep.json" in found["first"].fault
    assert found["empty"].fault
    assert found["second"].trials


def test_no_sweeps_are_fine(tmp_path):
    assert listing.found(tmp_path) == []
    assert len(str(listing.listing([])).splitlines()) == 1


def test_a_database_that_does_not_answer_is_asked_once(logs, monkeypatch):
    from trainlab.sweeps.faults import QueueError

    for name in ("first", "second"):
        path = logs / ".sweeps" / name / "sweep.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"at": "far"}))
    asked = []

    def silent(known, **_):
        asked.append(known.name)
        raise QueueError("far does not answer.", passing=True)

    monkeypatch.setattr(Queue, "open", silent)
    assert [each.fault for each in listing.found(logs)] == ["far does not answer."] * 2
    assert len(asked) == 1
