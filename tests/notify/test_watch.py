"""What is newly worth telling, out of folders of runs."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import namedtuple

import pytest

import trainlab
from runs_folder import make
from trainlab.notify import watch
from trainlab.notify.watch import SweepEnd, Watcher
from trainlab.run import lock, record

USAGE = namedtuple("USAGE", "total used free")


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(logs, clock):
    """A watcher's looks, each some time after the one before: a walk, and two looks at whoever is dead."""
    watcher = Watcher(logs, clock=clock)
    watcher.look()

    def looks(seconds: float = watch.WALK + 1, of: Watcher = watcher):
        found = []
        for _ in range(watch.DEAD_LOOKS):
            clock.ahead += seconds
            found += of.look(seconds)
        of.save()
        return found

    looks.watcher = watcher
    return looks


def again(logs, clock):
    return Watcher(logs, clock=clock)


def test_runs_that_had_ended_before_the_first_look_are_not_told(logs, clock):
    make(logs, "news/old", status="failed", minutes_ago=600)
    make(logs, "news/died-long-ago", status="running", minutes_ago=600)
    os.utime(logs / "news/died-long-ago/run.json", (1e9, 1e9))
    first = Watcher(logs, clock=clock)
    assert first.look() == []
    with trainlab.Run("news", logs=logs, monitor=False):
        pass
    second = Watcher(logs, clock=clock)
    assert second.look() == []
    second.save()
    for watcher in (second, Watcher(logs, clock=clock)):
        clock.ahead += 100
        assert watcher.look(100) == []


def test_a_run_s_end_is_told_once_with_its_goal_and_its_reason(logs, told):
    run = trainlab.Run("news", {"lr": 0.1}, metrics=["val/loss"], logs=logs, monitor=False)
    assert told() == []
    run.log({"val/loss": 0.25}, 7)
    run.finish("failed", "ValueError: /home/ann/x is bad")
    (news,) = told()
    assert (news.name, news.status) == (f"news/{run.name}", "failed")
    assert (news.goal, news.reason) == ("val/loss 0.25 (best, step 7)", "ValueError: … is bad")
    assert told() == []


def test_a_run_that_began_and_ended_between_two_looks_is_told(logs, told):
    with trainlab.Run("news", logs=logs, monitor=False) as run:
        run.log({"val/loss": math.nan}, 3)
    assert [(each.kind, each.status) for each in told()] == [
        ("nan", "val/loss is NaN since step 3"),
        ("end", "finished"),
    ]


def test_a_run_that_died_without_a_word_is_told_as_interrupted(logs, told):
    folder = make(logs, "news/died", status="running")
    held = lock.hold(folder)
    assert told() == []
    held.release()
    (news,) = told()
    assert news.status == "interrupted"
    assert news.reason == record.UNKNOWN
    assert told() == []


def test_nothing_is_told_twice_and_nothing_lost_over_a_restart(logs, clock, told):
    before = make(logs, "news/before", status="running")
    during = make(logs, "news/during", status="running")
    locks = [lock.hold(folder) for folder in (before, during)]
    assert told() == []
    record.write_end(before, "finished")
    locks[0].release()
    assert [each.name for each in told()] == ["news/before"]
    record.write_end(during, "failed", "while nobody watched")
    locks[1].release()
    with trainlab.Run("news", name="whole", logs=logs, monitor=False) as unseen:
        pass
    second = again(logs, clock)
    found = second.look() + told(of=second)
    assert {each.name for each in found} == {"news/during", f"news/{unseen.name}"}
    third = again(logs, clock)
    assert third.look() + told(of=third) == []


def test_a_restart_long_after_tells_nothing_that_was_told(logs, clock, told):
    with trainlab.Run("news", logs=logs, monitor=False):
        pass
    assert len(told()) == 1
    clock.ahead += 10 * 86400
    second = again(logs, clock)
    assert second.look() + told(of=second) == []


def test_a_run_that_goes_on_is_told_again_at_its_next_end(logs, told):
    folder = make(logs, "news/run", status="running")
    held = lock.hold(folder)
    told()
    record.write_end(folder, "failed", "first")
    held.release()
    assert [each.reason for each in told()] == ["first"]
    record.reopen(folder)
    held = lock.hold(folder)
    assert told() == []
    record.write_end(folder, "finished")
    held.release()
    assert [each.status for each in told()] == ["finished"]


def test_nan_is_told_once_while_the_run_goes_on(logs, told):
    with trainlab.Run("news", logs=logs, monitor=False) as run:
        run.log({"train/loss": 1.0}, 0)
        assert told() == []
        run.log({"train/loss": math.nan}, 1)
        assert [each.status for each in told()] == ["train/loss is NaN since step 1"]
        run.log({"train/loss": math.nan}, 2)
        assert told() == []


def test_a_stall_is_told_once_and_not_after_the_machine_was_asleep(logs, clock, told):
    with trainlab.Run("news", logs=logs, monitor=False) as run:
        for step in range(5):
            run.log({"train/loss": 1.0}, step)
        assert told() == []
        clock.ahead += 9999
        assert told.watcher.look(5) == []
        assert [each.kind for each in told(400)] == ["stall"]
        assert told(400) == []


def test_of_a_sweep_failed_trials_are_told_and_its_end_once(logs, clock):
    ended: dict[str, SweepEnd] = {}
    watcher = Watcher(logs, lambda names: {name: ended[name] for name in names if name in ended}, clock)
    watcher.look()
    fields = {"sweep": {"name": "lr", "trial": 1}}
    make(logs, "news/good", **fields)
    make(logs, "news/bad", status="failed", reason="broken", **fields)
    make(logs, "news/pruned", status="interrupted", sweep={"name": "lr", "trial": 2, "stopped": "pruned"})

    def look():
        clock.ahead += watch.WALK + 1
        return watcher.look(watch.WALK + 1)

    (news,) = look() + look()
    assert (news.name, news.sweep, news.reason) == ("news/bad", "lr", "broken")
    assert look() == []
    ended["lr"] = SweepEnd(state="done", trials="3 trials: 1 finished, 1 failed, 1 pruned")
    found = [each for _ in range(5) for each in look()]
    assert [(each.name, each.status, each.reason) for each in found] == [
        ("sweep lr", "done", "3 trials: 1 finished, 1 failed, 1 pruned")
    ]


def test_a_disk_that_is_nearly_full_is_told_once_until_there_is_room_again(logs, told, monkeypatch):
    free = 4
    monkeypatch.setattr(watch.shutil, "disk_usage", lambda _: USAGE(100, 100 - free, free))
    assert [each.kind for each in told()] == ["disk"]
    free = 6
    assert told() == []
    free = 4
    assert told() == []
    free = 9
    assert told() == []
    free = 4
    assert len(told()) == 1


def test_a_run_that_is_moved_away_or_damaged_is_passed(logs, told):
    gone, damaged = (make(logs, f"news/{name}", status="running") for name in ("gone", "damaged"))
    locks = [lock.hold(folder) for folder in (gone, damaged)]
    assert told() == []
    shutil.rmtree(gone)
    (damaged / "run.json").write_text("{")
    assert told() == []
    for each in locks:
        each.release()
    assert told() == []


def test_a_folder_whose_name_is_no_text_is_told_and_remembered(logs, clock, told):
    folder = logs / os.fsdecode(b"news/\xff\n\xc3\xa4")
    with trainlab.Run("news", logs=logs, monitor=False) as run:
        pass
    run.folder.rename(folder)
    held = lock.hold(folder)
    assert told() == []
    second = again(logs, clock)
    held.release()
    (news,) = second.look() + told(of=second)
    assert news.name == "news/? \xe4"
    third = again(logs, clock)
    assert third.look() + told(of=third) == []


def test_one_run_that_is_full_of_traps_hides_no_other(logs, told, monkeypatch):
    make(logs, "news/trap", sweep={"name": "../../x", "trial": 1})
    make(logs, "news/bad", sweep={"name": "a\0b", "trial": 1}, status="failed")
    make(logs, "news/good")
    goal = watch._goal
    monkeypatch.setattr(watch, "_goal", lambda known: 1 / 0 if known.run == "worst" else goal(known))
    make(logs, "news/worst")
    assert sorted(each.name for each in told()) == ["news/bad", "news/good"]
    assert told.watcher.memory.sweeps == set()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        '{"version": 2, "looked": 1, "since": 1}',
        '{"version": 1, "looked": NaN, "since": 1}',
        json.dumps(
            {"version": 1, "looked": 1e9, "since": 1e9, "watched": {"../../etc": {}, "/etc": {}, "a\0b": {}}}
        ),
    ],
)
def test_whatever_stands_in_its_file_it_watches_on(logs, content):
    (logs / watch.FILE).write_text(content)
    watcher = Watcher(logs)
    assert watcher.look() == []
    watcher.save()
    assert json.loads((logs / watch.FILE).read_text())["watched"] == {}


def test_its_file_is_no_link_that_is_followed(logs, tmp_path):
    (tmp_path / "mine").write_text("keep")
    (logs / watch.FILE).symlink_to(tmp_path / "mine")
    watcher = Watcher(logs)
    watcher.look()
    watcher.save()
    assert (tmp_path / "mine").read_text() == "keep"
