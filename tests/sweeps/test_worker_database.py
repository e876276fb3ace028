"""A database that goes away for a while, and a host that it does not hear any more."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import pytest

from sweeping import assert_whole
from trainlab.run import lock
from trainlab.sweeps import loop, owners, slots, worker
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.queue import Queue
from waiting import until


def test_runs_go_on_while_the_database_is_gone_and_trials_are_told_afterwards(sweep, monkeypatch, capsys):
    tried = sweep(2)
    monkeypatch.chdir(tried.root)
    monkeypatch.setenv("TRAINLAB_ROOT", str(tried.root))
    left, finish = [3], Queue.finish

    def refused(self, *words, **named):
        if left[0]:
            left[0] -= 1
            raise QueueError("The database at head:5432 does not answer.", passing=True)
        return finish(self, *words, **named)

    monkeypatch.setattr(Queue, "finish", refused)
    assert worker.lead(tried.definition, slots=slots.find(2, gpus=False), logs=tried.logs) == 0
    assert [(each.state, each.attempts) for each in tried.trials()] == [("finished", 1)] * 2
    for folder in tried.folders():
        assert_whole(folder)
    said = capsys.readouterr().err
    assert said.count("does not answer. The runs go on") == 1
    assert "the database answers again" in said


def test_a_trial_that_is_another_s_by_now_is_left_to_it_and_its_run_here_killed(sweep, monkeypatch):
    tried = sweep(1, fixed={"hold": "1"})
    process = tried.lead(TRAINLAB_GRACE="3")
    (folder,) = tried.held(1, 2)
    (trial,) = tried.trials()
    queue = Queue.open(tried.definition, None, tried.logs)
    mark = owners.token()
    assert queue.adopt(0, trial.owner, owners.own("cpu-0", mark))
    until(lambda: not lock.alive(folder), "the run here is killed")
    assert process.poll() is None, "it goes on, for other trials"
    assert queue.beat(0, owners.own("cpu-0", mark))
    process.terminate()
    assert process.wait(30) == 143
    assert tried.trials()[0].owner.token == mark


def fenced(found: loop.Worker, looks: int) -> None:
    """Let the fence look so many times, without waiting."""
    left = iter([False] * looks + [True])
    found._fence(SimpleNamespace(wait=lambda _: next(left)))


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a function that makes a worker with one run, and the signals that it has been sent."""
    monkeypatch.setenv("TRAINLAB_GRACE", "60")

    def make(at):
        queue = SimpleNamespace(definition=SimpleNamespace(at=at))
        found, sent = loop.Worker(slots.Slots([]), tmp_path, [queue]), []
        found.jobs.append(loop.Job(queue, SimpleNamespace(signal=sent.append), None))
        return found, sent

    return make


def test_the_fence_ends_runs_that_another_host_is_about_to_take_over(host):
    found, sent = host("head")
    fenced(found, 2)
    assert sent == [], "it has beaten"
    found.beaten -= 43  # of a grace of 60
    fenced(found, 2)
    assert sent == [signal.SIGTERM], "they save a checkpoint"
    found.beaten -= 10.1
    fenced(found, 1)
    assert sent == [signal.SIGTERM, signal.SIGKILL]


def test_nobody_takes_over_what_is_in_a_file_while_its_process_lives(host):
    found, sent = host(None)
    found.beaten -= 1000
    fenced(found, 2)
    assert sent == []


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A worker without slots at a head that has not answered for 50 s, of a grace of 60."""
    monkeypatch.setenv("TRAINLAB_GRACE", "60")
    known = SimpleNamespace(name="tiny", at="head")
    queue = SimpleNamespace(definition=known, where="head", is_over=lambda: False, running=list)
    found = loop.Worker(slots.Slots([]), tmp_path, [queue])
    found.beaten -= 50
    found._gone["head"] = found.beaten
    found._next["beat"] = time.monotonic() + 10
    return found


def test_once_the_database_answers_again_the_fence_is_told_in_the_same_moment(away):
    away._tick()
    assert time.monotonic() - away.beaten < 40
    assert away._gone == {}


def test_a_head_that_is_gone_is_not_asked_for_new_sweeps(away):
    looks = []
    away._joined = SimpleNamespace(at="head", look=lambda busy: looks.append(busy) or away.queues)

    def refused():
        raise QueueError("The database at head:5432 does not answer.", passing=True)

    answers, away.queues[0].is_over = away.queues[0].is_over, refused
    away._tick()
    assert looks == []
    away.queues[0].is_over = answers
    away._next["head"] = 0.0
    away._tick()
    assert len(looks) == 1
