"""Whether whoever runs a trial lives, as seen from this process."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from trainlab.sweeps import owners
from trainlab.sweeps.queue import Trial


def trial(owner, beat="1") -> Trial:
    return Trial(0, "running", {}, owner, (), 1, None, "", beat)


def test_a_process_of_this_machine_is_gone_when_it_has_ended_or_its_number_is_another_s():
    mark = owners.token()
    own = owners.own("cpu-0", mark)
    assert owners.is_gone(own, mark, one_machine=False) is False
    assert owners.is_gone(replace(own, started=own.started - 5), mark, one_machine=False) is True
    child = subprocess.Popen(["sleep", "60"])
    theirs = replace(own, pid=child.pid, started=owners.started(child.pid))
    assert owners.is_gone(theirs, mark, one_machine=False) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owners.is_gone(theirs, mark, one_machine=False) is True, "a zombie runs nothing"
    child.wait()


def test_processes_that_are_numbered_apart_are_not_looked_up():
    mark = "boot.1-aa"
    elsewhere = owners.own("cpu-0", "other.1-bb")
    assert owners.is_gone(elsewhere, mark, one_machine=False) is None
    assert owners.is_gone(elsewhere, mark, one_machine=True) is True, "the machine has booted since"
    container = owners.own("cpu-0", "boot.2-bb")
    assert owners.is_gone(container, mark, one_machine=True) is None


def test_an_owner_is_silent_too_long_by_this_process_s_own_clock_alone(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(owners.time, "monotonic", lambda: clock[0])
    silence, one = owners.Silence(60.0), owners.own("cpu-0", "other.1-bb")

    def look(seconds: float, beat: str) -> bool:
        clock[0] += seconds
        silence.looked()
        return silence.too_long("tiny", trial(one, beat))

    assert [look(10, "1") for _ in range(6)] == [False] * 6
    assert look(5, "2") is False, "it has beaten"
    assert [look(20, "2") for _ in range(3)] == [False] * 3
    assert look(1, "2") is True
    assert look(1, "3") is False
    assert look(300, "3") is False, "the database was away, and nobody's beat could be seen"
    assert [look(25, "3") for _ in range(2)] == [False] * 2
    assert look(25, "3") is True


def test_the_grace_is_60_seconds_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv(owners.GRACE, raising=False)
    assert owners.grace() == 60.0
    monkeypatch.setenv(owners.GRACE, "6")
    assert owners.grace() == 6.0
    monkeypatch.setenv(owners.GRACE, "soon")
    assert owners.grace() == 60.0
