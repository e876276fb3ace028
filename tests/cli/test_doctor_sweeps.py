"""`trainlab doctor` on sweeps and their head."""

from __future__ import annotations

import socket
from collections import namedtuple

import pytest

from trainlab.cli import doctor_sweeps
from trainlab.run import lock
from trainlab.sweeps import database, definition, storage
from trainlab.sweeps.queue import Owner, Queue

Address, Connection, Card = (
    namedtuple("Address", "ip port"),
    namedtuple("Connection", "laddr status"),
    namedtuple("Card", "address"),
)
HERE = Owner(socket.gethostname(), 1, 1.0, "0", "here")
THERE = Owner("elsewhere", 1, 1.0, "0", "there")


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A folder of runs with a sweep that nobody leads, and a doctor who does not wait long."""
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")
    known = {"name": "margins", "program": str(program), "goal": "val/loss", "mode": "min", "method": "grid"}
    known |= {"trials": 2, "space": {"margin": [1, 3]}}
    definition.create(definition.Definition(**known), tmp_path / "logs")
    Queue.create(definition.load("margins", tmp_path / "logs"), logs=tmp_path / "logs").close()
    monkeypatch.setattr(doctor_sweeps, "BEAT", 0.2)
    monkeypatch.setattr(doctor_sweeps, "GLANCE", 0.02)
    return tmp_path / "logs"


def queue_in(logs):
    return Queue.open(definition.load("margins", logs), logs=logs)


def test_nothing_is_said_where_there_are_no_sweeps(tmp_path):
    assert list(doctor_sweeps.examine(tmp_path)) == []


def test_a_sweep_on_a_disk_of_this_machine_is_fine_and_on_a_network_drive_is_not(logs, monkeypatch):
    (line,) = doctor_sweeps.examine(logs)
    assert (line.subject, line.level) == ("sweeps", "ok")
    disk = namedtuple("Disk", "mountpoint fstype")
    monkeypatch.setattr(database.psutil, "disk_partitions", lambda all: [disk("/", "nfs4")])
    (line,) = doctor_sweeps.examine(logs)
    assert line.level == "error"
    assert "nfs4" in line.found


def test_a_trial_without_a_beat_is_named_with_its_host(logs):
    queue_in(logs).take(THERE)
    _, line = doctor_sweeps.examine(logs)
    assert (line.subject, line.level) == ("sweep margins", "warning")
    assert "trial 0" in line.found and "elsewhere" in line.found


def test_a_trial_that_beats_is_not(logs, monkeypatch):
    queue = queue_in(logs)
    queue.take(HERE)
    monkeypatch.setattr(doctor_sweeps.time, "sleep", lambda _: queue.beat(0, HERE))
    assert [line.level for line in doctor_sweeps.examine(logs)] == ["ok"]


@pytest.mark.parametrize("held", [True, False])
def test_a_run_of_another_host_must_look_taken_here(logs, monkeypatch, held):
    run = logs / "tiny/margins-000"
    run.mkdir(parents=True)
    queue = queue_in(logs)
    queue.take(THERE)
    queue.started(0, THERE, "tiny/margins-000")
    monkeypatch.setattr(doctor_sweeps.time, "sleep", lambda _: queue.beat(0, THERE))
    held_by_other = lock.hold(run) if held else None
    _, line = doctor_sweeps.examine(logs)
    assert (line.subject, line.level) == ("locks", "ok" if held else "warning")
    if held_by_other:
        held_by_other.release()


def test_a_head_that_does_not_answer_is_told_with_what_to_do(logs, free_port, monkeypatch):
    monkeypatch.delenv("TRAINLAB_HEAD_PASSWORD", raising=False)
    line = doctor_sweeps.head(f"127.0.0.1:{free_port()}", logs)
    assert line.level == "error"
    assert "refused" in line.found
    assert "make head" in line.fix


class Server:
    """Answers one question, as psycopg does."""

    def __init__(self, encoding):
        self.encoding = encoding

    def execute(self, _):
        return self

    def fetchone(self):
        return (self.encoding,)

    def close(self):
        pass


@pytest.mark.parametrize(
    ("encoding", "kept", "expected"),
    [
        ("SQL_ASCII", {}, ("error", "SQL_ASCII")),
        ("UTF8", {}, ("ok", "0 of its 0 sweeps")),
        ("UTF8", {"margins": "mine"}, ("ok", "1 of its 1 sweeps")),
        ("UTF8", {"margins": "f" * 32}, ("error", "another logs/")),
    ],
)
def test_a_head_is_asked_for_its_encoding_and_its_sweeps(logs, monkeypatch, encoding, kept, expected):
    own = storage.read(logs / ".sweeps/margins")
    monkeypatch.setattr(database, "server_options", lambda at: {"creator": lambda: Server(encoding)})
    monkeypatch.setattr(
        storage, "kept", lambda at: {name: own if said == "mine" else said for name, said in kept.items()}
    )
    line = doctor_sweeps.head("head", logs)
    assert line.level == expected[0]
    assert expected[1] in line.found


@pytest.mark.parametrize(
    ("listens", "cards", "level"),
    [
        ([("127.0.0.1", 5432)], [], "ok"),
        ([("10.0.0.5", 5432), ("::1", 5432)], ["8.8.8.8"], "ok"),
        ([("8.8.8.8", 5432)], [], "error"),
        ([("0.0.0.0", 5432)], ["127.0.0.1", "10.0.0.5", "fe80::1%eth0", "02:42:ac:11:00:02"], "ok"),
        ([("::", 5432)], ["8.8.8.8"], "error"),
        ([("8.8.8.8", 22)], [], None),
        ([], ["8.8.8.8"], None),
    ],
)
def test_a_head_that_the_internet_reaches_is_an_error(monkeypatch, listens, cards, level):
    found = [Connection(Address(*each), "LISTEN") for each in listens] + [Connection((), "NONE")]
    monkeypatch.setattr(doctor_sweeps.psutil, "net_connections", lambda kind: found)
    monkeypatch.setattr(
        doctor_sweeps.psutil, "net_if_addrs", lambda: {"eth0": [Card(each) for each in cards]}
    )
    lines = [*doctor_sweeps.listening("5432", "a database")]
    assert [line.level for line in lines] == ([level] if level else [])
