"""Kills and stops while a sweep runs: nothing is lost, and each trial is complete exactly once."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import psutil
import pytest

from sweeping import assert_whole, kill_run, runner
from trainlab.run import lock, record, stopping
from trainlab.sweeps import owners
from trainlab.sweeps.queue import Queue, rebuild
from trainlab.sweeps.starting import Order, prepared
from waiting import until

HELD = {"hold": "1"}  # two values, then wait


def assert_complete(tried, count=2) -> None:
    trials = tried.trials()
    assert [each.state for each in trials] == ["finished"] * count
    assert [each.value for each in trials] == [1.25 + number for number in range(count)]
    folders = tried.folders()
    assert len(folders) == count, "one folder a trial"
    for folder in folders:
        assert_whole(folder)


def test_a_killed_leader_s_runs_go_on_and_are_adopted_by_the_next_one(sweep):
    tried = sweep(3, fixed=HELD)
    first = tried.lead()
    folders = tried.held(2, 2)
    before = [runner(folder).pid for folder in folders]
    first.kill()
    first.communicate()
    assert [lock.alive(folder) for folder in folders] == [True, True]
    second = tried.lead()
    until(lambda: {each.owner.pid for each in tried.trials()[:2] if each.owner} == {second.pid}, "adopted")
    assert [runner(folder).pid for folder in folders] == before, "they go on as they are"
    tried.go()
    assert second.wait(120) == 0
    assert_complete(tried, 3)
    assert [each.attempts for each in tried.trials()] == [1, 1, 1]
    assert [record.read(folder).resumes for folder in folders] == [[], []]


def test_runs_that_finish_while_nobody_leads_are_told_afterwards(sweep):
    tried = sweep(2, fixed=HELD)
    first = tried.lead()
    folders = tried.held(2, 2)
    first.kill()
    first.communicate()
    tried.go()
    until(lambda: not any(map(lock.alive, folders)), "the runs have ended")
    tried.led()
    assert_complete(tried)
    assert [each.attempts for each in tried.trials()] == [1, 1]


def test_a_killed_run_is_resumed_in_its_folder_from_its_checkpoint(sweep):
    tried = sweep(2, fixed=HELD)
    process = tried.lead()
    folders = tried.held(2, 2)
    kill_run(folders[0])
    tried.go()
    assert process.wait(120) == 0
    assert_complete(tried)
    assert [each.attempts for each in tried.trials()] == [2, 1]
    resumes = record.read(folders[0]).resumes
    assert [each.step for each in resumes] == [20]


def test_a_killed_script_is_resumed_too(sweep):
    tried = sweep(1, fixed=HELD)
    process = tried.lead()
    (folder,) = tried.held(1, 2)
    (script,) = runner(folder).children()[1:] or runner(folder).children()
    own = next(each for each in [script, *runner(folder).children()] if str(tried.program) in each.cmdline())
    tried.go()
    own.kill()
    assert process.wait(120) == 0
    assert_complete(tried, 1)
    assert tried.trials()[0].attempts == 2


def test_all_processes_killed_at_once_as_by_a_power_loss(sweep):
    tried = sweep(3, fixed=HELD)
    process = tried.lead()
    folders = tried.held(2, 2)
    doomed = [process.pid, *(each for folder in folders for each in lock.holders(folder))]
    for number in doomed:
        os.kill(number, signal.SIGKILL)
    process.communicate()
    until(lambda: not any(map(lock.alive, folders)), "nothing is left")
    assert {each.state for each in tried.trials()[:2]} == {"running"}
    tried.go()
    tried.led()
    assert_complete(tried, 3)
    assert [each.attempts for each in tried.trials()] == [2, 2, 1]


def test_a_run_without_a_checkpoint_begins_again_in_a_new_folder_of_the_same_trial(sweep):
    tried = sweep(1, fixed=HELD | {"saves": "False"})
    process = tried.lead()
    (folder,) = tried.held(1, 2)
    kill_run(folder)
    tried.go()
    assert process.wait(120) == 0
    (trial,) = tried.trials()
    first, second = tried.folders()
    assert trial.runs == (f"tiny/{first.name}", f"tiny/{second.name}")
    assert (trial.state, trial.value) == ("finished", 1.25)
    assert trial.reason == f"begun again in a new folder: {folder.name} has no whole checkpoint."
    assert record.read(first).status == "running", "kept as it is: the table shows that it died"
    assert_whole(second)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_gives_back_and_the_sweep_goes_on_from_there(sweep, number):
    tried = sweep(3, fixed=HELD)
    process = tried.lead()
    folders = tried.held(2, 2)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert "saves a checkpoint" in error
    assert [each.state for each in tried.trials()] == ["waiting"] * 3
    known = [record.read(folder) for folder in folders]
    assert [(each.status, each.reason) for each in known] == [("interrupted", "its sweep was stopped")] * 2
    tried.go()
    tried.led()
    assert_complete(tried, 3)
    assert [each.attempts for each in tried.trials()] == [1, 1, 1], "nobody has lost anything"
    assert record.read(folders[0]).sweep.stopped is None


def test_a_signal_that_was_ignored_before_stops_nothing_as_behind_nohup(sweep):
    tried = sweep(1, fixed=HELD)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = tried.lead()
    finally:
        signal.signal(signal.SIGINT, before)
    tried.held(1, 2)
    process.send_signal(signal.SIGINT)
    tried.go()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert [each.state for each in tried.trials()] == ["finished"]


def test_a_second_stop_ends_runs_that_do_not_end(sweep):
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    body = "def value(s, step):\n    return 1.0\n"
    tried = sweep(1, value=stubborn + body, fixed={"hold": "0"})
    process = tried.lead()
    (folder,) = tried.held(1, 1)
    process.send_signal(signal.SIGINT)
    until(lambda: record.read(folder).sweep.stopped, "the run is asked to end")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert not lock.alive(folder)
    (trial,) = tried.trials()
    assert (trial.state, trial.attempts) == ("waiting", 0)


def test_a_run_that_a_user_stops_by_hand_has_failed_and_is_not_begun_again(sweep):
    tried = sweep(2, fixed=HELD)
    process = tried.lead()
    folders = tried.held(2, 2)
    stopping.stop(folders[0])
    tried.go()
    assert process.wait(120) == 0
    trials = tried.trials()
    assert [(each.state, each.reason) for each in trials] == [("failed", "stopped by hand"), ("finished", "")]
    assert record.read(folders[0]).reason == "stopped by hand"


def test_a_run_that_the_machine_stops_waits_again(sweep):
    tried = sweep(1, fixed=HELD)
    process = tried.lead()
    (folder,) = tried.held(1, 2)
    runner(folder).terminate()
    tried.go()
    assert process.wait(120) == 0
    assert_complete(tried, 1)
    assert tried.trials()[0].attempts == 2, "without end it would not be begun again"


def test_a_trial_that_is_lost_four_times_has_failed(sweep):
    deadly = "import os\ndef value(s, step):\n    os.kill(os.getppid(), 9)\n    import time; time.sleep(60)\n"
    (trial,) = sweep(1, value=deadly).led(expected=1)
    assert (trial.state, trial.attempts) == ("failed", 4)
    assert trial.reason.startswith("lost 4 times: its run was killed")


def test_a_run_whose_folder_is_deleted_has_failed(sweep):
    import shutil

    tried = sweep(2, fixed=HELD)
    process = tried.lead()
    folders = tried.held(2, 2)
    number = runner(folders[0]).pid
    shutil.rmtree(folders[0])
    psutil.Process(number).kill()
    tried.go()
    assert process.wait(120) == 0
    assert [each.state for each in tried.trials()] == ["failed", "finished"]


def test_a_run_that_had_not_begun_is_no_attempt_of_its_trial(sweep):
    tried = sweep(1)
    queue = Queue.create(tried.definition, None, tried.logs)
    gone = replace(owners.own("cpu-0", owners.token()), started=0.0)
    assert queue.take(gone).attempts == 1
    told = {"name": "tiny", "trial": 0, "attempts": 1}
    ready = prepared(Order(str(tried.program), False, ("x=1.0",), (), "tiny-000", told))
    queue.started(0, gone, f"tiny/{ready.folder.name}")
    ready.held.release()  # with the process, between the two
    (trial,) = tried.led()
    assert (trial.state, trial.attempts) == ("finished", 1)
    assert trial.reason == f"begun again in a new folder: {ready.folder.name} has no whole checkpoint."
    assert_whole(tried.folders()[1])


def test_a_run_that_is_alive_while_the_study_is_made_anew_has_the_only_slot(sweep):
    tried = sweep(3, fixed=HELD, seeds=2)
    first = tried.lead(1)
    (folder,) = tried.held(1, 2)
    first.kill()
    first.communicate()
    rebuild(tried.definition, tried.logs).close()
    second = tried.lead(1)
    until(lambda: (owner := tried.trials()[0].owner) and owner.pid == second.pid, "it is adopted")
    assert [each.state for each in tried.trials()] == ["running", "waiting", "waiting"]
    assert tried.folders() == [folder]
    tried.go()
    assert second.wait(120) == 0
    assert [(each.state, len(each.runs)) for each in tried.trials()] == [("finished", 2)] * 3


def test_whoever_leads_a_sweep_that_is_deleted_ends_with_a_sentence_and_its_run_goes_on(sweep):
    import shutil

    tried = sweep(2, fixed=HELD)
    process = tried.lead(1)
    (folder,) = tried.held(1, 2)
    shutil.rmtree(tried.logs / ".sweeps" / "tiny")
    tried.go()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "UserError" in error or "QueueError" in error
    assert "was deleted, or made anew meanwhile. Its runs are whole" in error
    until(lambda: not lock.alive(folder), "the run has ended")
    assert_whole(folder)
