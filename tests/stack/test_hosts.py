"""A sweep on several hosts: containers on a network of the real engine, and faults that are real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from hosts import GRACE, Hosts, docker, lives, values, writers
from project import CHECKOUT
from trainlab.run import lock, record
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]
BUSY = 3.0  # seconds that a look at the database, or a signal, may take on a machine with other work


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """A network with a head; whatever was started on it is gone at the end."""
    folder = tmp_path / "shared"
    folder.mkdir()
    found = Hosts(folder, f"hosts{os.getpid()}")
    failed = request.session.testsfailed
    try:
        found.begin()
        yield found
    finally:
        for host in found.started if request.session.testsfailed > failed else ():
            print(f"--- {host}\n{found.said(host)}")
        found.end()


def at_work(hosts: Hosts, *words: str) -> tuple[Path, Path]:
    """Start host a, which leads a sweep, and host b, which joins; return the run that each holds."""
    hosts.lead("a", *words)
    until(hosts.trials, "the sweep has begun")
    hosts.work("b")
    found = {writers(folder)[0]: folder for folder in hosts.held(2)}
    return found["a"], found["b"]


def assert_moved(folder: Path, count: int = 1) -> None:
    """Assert that a run was begun by host b, and went on where it was on another host."""
    assert writers(folder) == ["b", "a"]
    assert next(step for host, _, step in lives(folder) if host == "a") == 2, "from its checkpoint"
    assert len(record.read(folder).resumes) == count


def test_hosts_share_the_trials_of_a_sweep(hosts: Hosts) -> None:
    at_work(hosts)
    hosts.go()
    hosts.ended("a", "b")
    hosts.assert_complete(2)


def test_a_killed_host_s_trial_goes_on_elsewhere_within_the_grace(hosts: Hosts) -> None:
    kept, lost = at_work(hosts)
    hosts.kill("b")
    killed = time.monotonic()
    until(lambda: hosts.trial_of(lost).host != "b", "somebody else takes it over")
    assert time.monotonic() - killed < GRACE + 2 + BUSY
    hosts.go()
    hosts.ended("a")
    hosts.assert_complete(2)
    assert_moved(lost)
    assert record.read(kept).resumes == []


def test_power_lost_everywhere_at_once_loses_no_trial(hosts: Hosts) -> None:
    for folder in at_work(hosts):
        assert len(values(folder)) == 2
    docker("kill", *(hosts.container(each) for each in ("a", "b", "head")))
    docker("start", hosts.container("head"))
    hosts.until_head_answers()
    hosts.go()
    hosts.resume("c")
    docker("start", hosts.container("b"))
    hosts.ended("c", "b")
    hosts.assert_complete(2)


def test_a_restarted_database_is_found_again_and_no_run_notices(hosts: Hosts) -> None:
    folders = at_work(hosts)
    docker("restart", hosts.container("head"))
    hosts.until_head_answers()
    hosts.go()
    hosts.ended("a", "b")
    hosts.assert_complete(2)
    assert [record.read(folder).resumes for folder in folders] == [[], []]
    assert [each.facts["attempts"] for each in hosts.trials()] == [1, 1]


def test_a_database_that_is_gone_for_the_grace_costs_a_checkpoint_and_no_trial(hosts: Hosts) -> None:
    folders = at_work(hosts)
    docker("stop", hosts.container("head"))
    for folder in folders:  # nobody here can tell it from a cut, when trials go elsewhere
        until(lambda folder=folder: record.read(folder).status == "interrupted", "its run saves and ends")
    hosts.go()
    docker("start", hosts.container("head"))
    hosts.ended("a", "b")
    hosts.assert_complete(2)
    assert [len(record.read(folder).resumes) for folder in folders] == [1, 1]


def test_a_database_whose_disk_is_full_loses_nothing(hosts: Hosts) -> None:
    at_work(hosts)
    fill = "cat /dev/zero >/var/lib/head/fill"
    docker("exec", hosts.container("disk"), "bash", "-c", fill, check=False)
    until(lambda: "No space left" in hosts.said("head"), "the database has no room")
    hosts.go()
    docker("exec", hosts.container("disk"), "rm", "/var/lib/head/fill")
    hosts.ended("a", "b")
    hosts.assert_complete(2)


def test_a_host_that_is_cut_off_ends_its_run_before_another_takes_it(hosts: Hosts) -> None:
    kept, lost = at_work(hosts)
    hosts.cut("b")
    until(lambda: record.read(lost).status == "interrupted", "the cut host ends its run")
    assert (hosts.trial_of(lost).state, hosts.trial_of(lost).host) == ("RUNNING", "b"), "before the take-over"
    until(lambda: hosts.trial_of(lost).host != "b", "somebody else takes it over")
    hosts.go()
    hosts.ended("a")
    hosts.assert_complete(2)
    assert_moved(lost)
    hosts.heal("b")
    hosts.ended("b")
    hosts.assert_complete(2)
    assert record.read(kept).resumes == []


def test_a_run_that_heeds_no_signal_is_killed_before_another_host_takes_it(hosts: Hosts) -> None:
    _, lost = at_work(hosts, "deaf=True")
    hosts.cut("b")
    cut = time.monotonic()
    until(lambda: not lock.alive(lost), "the cut host kills its run")
    assert time.monotonic() - cut < GRACE + BUSY
    assert (hosts.trial_of(lost).state, hosts.trial_of(lost).host) == ("RUNNING", "b"), "before the take-over"
    hosts.go()
    hosts.ended("a")
    hosts.assert_complete(2)
    assert_moved(lost)


def test_a_host_that_is_cut_off_and_comes_back_at_once_goes_on(hosts: Hosts) -> None:
    _, lost = at_work(hosts)
    hosts.cut("b")
    until(lambda: record.read(lost).status == "interrupted", "the cut host ends its run")
    hosts.heal("b")
    hosts.go()
    hosts.ended("a", "b")
    hosts.assert_complete(2)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler, which makes the wrong clock")
@pytest.mark.parametrize("seconds", ["3600", "-3600"])
def test_a_clock_that_is_wrong_by_an_hour_changes_nothing(hosts: Hosts, tmp_path: Path, seconds: str) -> None:
    library = tmp_path / "clock.so"
    source = CHECKOUT / "tests/support/wrong_clock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    hosts.lead("a", trials=3)
    until(hosts.trials, "the sweep has begun")
    mounts = {"/clock.so:ro": library}
    hosts.work("b", mounts=mounts, LD_PRELOAD="/clock.so", WRONG_BY=seconds)
    found = {writers(folder)[0]: folder for folder in hosts.held(2)}
    told = abs(record.read(found["b"]).started.timestamp() - time.time())
    assert 3000 < told < 4200, "the clock is wrong"
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 2 * GRACE, "the grace has passed twice")
    assert [each.facts["attempts"] for each in hosts.trials()] == [1, 1, 0], "nobody was taken for dead"
    hosts.kill("b")
    until(lambda: hosts.trial_of(found["b"]).host != "b", "somebody else takes it over")
    assert time.monotonic() - begun < 3 * GRACE + 2 + BUSY
    hosts.go()
    hosts.ended("a")
    hosts.assert_complete(3)
    assert_moved(found["b"])


def test_a_second_leader_and_another_logs_are_refused_with_a_sentence(hosts: Hosts, tmp_path: Path) -> None:
    hosts.lead("a")
    until(hosts.trials, "the sweep has begun")
    hosts.resume("second")
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, hosts.folder.stat().st_uid, -1)
    hosts.work("elsewhere", mounts={"/workspace/logs": other})
    for host, words in (("second", "goes on already"), ("elsewhere", "this machine sees another logs/")):
        until(lambda host=host: hosts.state(host)["Status"] == "exited", f"{host} ends")
        assert hosts.state(host)["ExitCode"] == 2, hosts.said(host)
        (line,) = [line for line in hosts.said(host).splitlines() if line.startswith("error")]
        assert words in line
        assert "Traceback" not in hosts.said(host)
    hosts.go()
    hosts.ended("a")
    hosts.assert_complete(2)
