"""The sweeps that a worker knows: one that is gone or has ended is in nobody's way."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

import postgresql
from sweeping import JOIN, Sweep
from takers import owner
from trainlab.errors import UserError
from trainlab.sweeps import database, definition, loop, slots
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.joining import Joined
from trainlab.sweeps.queue import Queue, rebuild
from waiting import until

ENDED = 50


def copied(logs, name, other):
    """Make another sweep of a sweep's folder, as if it had been ordered under that name."""
    place = shutil.copytree(logs / ".sweeps" / name, logs / ".sweeps" / other)
    path = place / definition.FILE
    path.write_text(path.read_text().replace(f'"name": "{name}"', f'"name": "{other}"'))
    with sqlite3.connect(place / database.FILE) as connection:
        connection.execute("UPDATE studies SET study_name = ?", [other])
    connection.close()
    return Queue.open(definition.load(other, logs), logs=logs)


@pytest.fixture
def made(sweep):
    """A sweep that nobody leads, with all of its trials waiting."""
    tried = sweep(2)
    Queue.create(tried.definition, logs=tried.logs).close()
    return tried


def names(queues):
    return sorted(queue.definition.name for queue in queues)


def open_files():
    return len([*Path("/proc/self/fd").iterdir()])


def end(queue):
    while trial := queue.take(owner("me")):
        queue.finish(trial.number, owner("me"), "finished", 1.0)
    queue.close()


def test_fifty_sweeps_that_have_ended_keep_no_files_open_and_one_with_new_trials_is_found(made):
    end(copied(made.logs, "tiny", "ended"))
    for number in range(ENDED):
        copied(made.logs, "ended", f"ended-{number}").close()
    said = []
    joined = Joined(None, [], made.logs, said.append)
    before = open_files()
    assert names(joined.look()) == ["tiny"]
    assert open_files() < before + 10
    opened = Queue.open
    try:
        Queue.open = lambda *words, **named: pytest.fail("one that has ended is opened again")
        assert names(joined.look()) == ["tiny"]
    finally:
        Queue.open = opened
    queue = Queue.open(definition.load("ended-7", made.logs), logs=made.logs)
    trial = queue.trials()[0]
    with queue._study.writing() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'WAITING' WHERE number = ?", (trial.number,))
    queue.close()
    assert names(joined.look()) == ["ended-7", "tiny"]
    assert said == []


def test_a_deleted_sweep_is_let_go_of_and_a_damaged_one_is_named_once(made):
    copied(made.logs, "tiny", "deleted").close()
    copied(made.logs, "tiny", "damaged").close()
    said = []
    joined = Joined(None, [], made.logs, said.append)
    assert names(joined.look()) == ["damaged", "deleted", "tiny"]
    shutil.rmtree(made.logs / ".sweeps" / "deleted")
    (made.logs / ".sweeps" / "damaged" / database.FILE).unlink()
    (made.logs / ".sweeps" / "damaged" / database.FILE).write_bytes(b"no database" * 999)
    for _ in range(3):
        assert names(joined.look()) == ["tiny"]
    assert len(said) == 1
    assert said[0].startswith("the sweep damaged is left alone: ")
    assert "trainlab sweep rebuild damaged" in said[0]


def test_where_all_sweeps_that_are_named_are_gone_there_is_nothing_to_wait_for(made):
    copied(made.logs, "tiny", "other").close()
    joined = Joined(None, ["tiny", "other"], made.logs, [].append)
    assert len(joined.look()) == 2
    shutil.rmtree(made.logs / ".sweeps" / "other")
    assert names(joined.look()) == ["tiny"]
    shutil.rmtree(made.logs / ".sweeps" / "tiny")
    with pytest.raises(UserError, match="No sweep 'tiny'"):
        joined.look()


def test_a_study_that_was_made_anew_is_the_one_that_trials_are_taken_of(made):
    joined = Joined(None, [], made.logs, [].append)
    (before,) = joined.look()
    rebuild(made.definition, made.logs).close()
    with pytest.raises(UserError, match="it was deleted, or made anew meanwhile"):
        before.take(owner("me"))
    (after,) = joined.look()
    assert after is not before
    assert after.take(owner("me")).number == 0


def test_a_worker_at_work_takes_trials_of_a_study_that_was_made_anew_beside_it(made):
    joined = Joined(None, [], made.logs, [].append)
    worker = loop.Worker(slots.find(1, gpus=False), made.logs, joined.look(), joined=joined)
    rebuild(made.definition, made.logs).close()
    worker._fill()  # meets that before it looks for new sweeps
    assert worker.queues == []
    worker._refresh(joined)
    (after,) = worker.queues
    assert after.take(owner("me")).number == 0


def test_a_sweep_whose_study_comes_later_to_the_head_is_found(tmp_path, monkeypatch, free_port):
    if not postgresql.programs():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", postgresql.PASSWORD)
    server = postgresql.Server(free_port())
    try:
        made, said = Sweep(tmp_path, 2, at=server.at), []
        joined = Joined(server.at, [], made.logs, said.append)
        for _ in range(2):
            assert joined.look() == []
        assert len(said) == 1
        Queue.create(made.definition, logs=made.logs).close()
        assert names(joined.look()) == ["tiny"]
    finally:
        server.remove()


def test_a_sweep_that_is_gone_while_its_run_is_on_is_no_reason_to_end_before_the_run(made):
    joined = Joined(None, ["tiny"], made.logs, [].append)
    joined.look()
    shutil.rmtree(made.logs / ".sweeps/tiny")
    joined.leave("tiny", QueueError("it is gone"))
    assert joined.look({"tiny"}) == []
    with pytest.raises(UserError, match="No sweep 'tiny'"):
        joined.look()


def test_sweeps_that_can_t_be_read_keep_no_files_open(made):
    for number in range(ENDED):
        copied(made.logs, "tiny", f"bad-{number}").close()
        path = made.logs / ".sweeps" / f"bad-{number}" / database.FILE
        path.write_bytes(b"no database" * 999)
    said = []
    joined = Joined(None, [], made.logs, said.append)
    before = open_files()
    assert names(joined.look()) == ["tiny"]
    assert len(said) == ENDED
    assert open_files() < before + 10


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_sweep_that_is_gone_stalls_no_other_one_and_its_run_goes_on(sweep, how):
    tried = sweep(2, fixed={"hold": "1"})
    Queue.create(tried.definition, logs=tried.logs).close()
    copied(tried.logs, "tiny", "a-gone").close()  # by its name the first that is taken of
    process = tried.lead(1, JOIN)
    tried.held(1, 2)
    gone = Queue.open(definition.load("a-gone", tried.logs), logs=tried.logs)
    first = gone if gone.running() else tried
    name = "a-gone" if first is gone else "tiny"
    gone.close()
    path = tried.logs / ".sweeps" / name / database.FILE
    if how == "deleted":
        shutil.rmtree(path.parent)
    else:
        path.with_name("other").write_bytes(b"no database" * 999)
        path.with_name("other").rename(path)
    tried.go()
    other = definition.load("tiny" if name == "a-gone" else "a-gone", tried.logs)

    def done():
        queue = Queue.open(other, logs=tried.logs)
        try:
            return [each.state for each in queue.trials()] == ["finished"] * 2
        finally:
            queue.close()

    until(done, "the other sweep's trials", 120)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert f"the sweep {name} is left alone" in error
    assert "Traceback" not in error
