from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from trainlab import system

BUSY = "import time\nwhile time.process_time() < 0.3: pass\nprint('ready', flush=True)\ninput()"


@pytest.fixture
def child():
    """A child that has computed for 0.3 seconds and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout.readline() == "ready\n"
        yield started
        started.communicate("\n")


def test_cpu_time_counts_children_while_they_run_and_after_they_have_ended():
    processes = system.Processes()
    before = processes.cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        during = processes.cpu_seconds()
        child.communicate("\n")
    assert during - before > 0.25
    assert processes.cpu_seconds() >= during - 0.05, "a sum of floats in another order, at most"


def test_memory_counts_children(child):
    processes = system.Processes()
    alone = processes.memory_bytes()
    processes.cpu_seconds()
    assert processes.memory_bytes() > alone + 2_000_000


def test_a_child_that_has_ended_takes_no_memory():
    processes = system.Processes()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        processes.cpu_seconds()
        together = processes.memory_bytes()
        child.communicate(b"\n")
    assert 0 < processes.memory_bytes() < together


def test_a_child_that_nobody_has_waited_for_disturbs_nothing():
    processes = system.Processes()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # now it is a zombie
    assert processes.cpu_seconds() > 0
    assert processes.memory_bytes() > 0
    assert processes.disk_bytes() is not None
    child.wait()


def test_written_bytes_are_counted(tmp_path):
    processes = system.Processes()
    before = processes.disk_bytes()[1]
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 3_000_000)
        os.fsync(file.fileno())
    if (grown := processes.disk_bytes()[1] - before) == 0:
        pytest.skip(f"{tmp_path} lies in memory: nothing is written to a disk")
    assert grown >= 3_000_000


def test_the_meter_is_the_container_s_inside_one(monkeypatch):
    monkeypatch.setattr(system, "in_container", lambda: True)
    monkeypatch.setattr(system, "cpu_seconds", lambda: 5.0)
    monkeypatch.setattr(system, "memory_used", lambda: 7)
    monkeypatch.setattr(system, "disk_bytes", lambda: (1, 2))
    meter = system.meter()
    assert (meter.cpu_seconds(), meter.memory_bytes(), meter.disk_bytes()) == (5.0, 7, (1, 2))


def test_a_container_whose_disks_are_not_counted_falls_back_to_its_processes(monkeypatch):
    monkeypatch.setattr(system, "in_container", lambda: True)
    monkeypatch.setattr(system, "disk_bytes", lambda: None)
    assert min(system.meter().disk_bytes()) >= 0


def test_outside_a_container_it_is_the_processes_own(monkeypatch):
    monkeypatch.setattr(system, "in_container", lambda: False)
    monkeypatch.setattr(system, "cpu_seconds", lambda: -1.0)
    assert system.meter().cpu_seconds() >= time.process_time() - 1


def test_the_cpus_are_those_allowed_or_fewer(monkeypatch):
    monkeypatch.setattr(system, "cpu_limit", lambda: 0.5)
    assert system.cpus() == 0.5
    monkeypatch.setattr(system, "cpu_limit", lambda: None)
    assert system.cpus() == len(os.sched_getaffinity(0))
