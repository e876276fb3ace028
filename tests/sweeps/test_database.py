"""Where a study lies: never where locks may not hold, and a head's server is asked with care."""

from __future__ import annotations

from collections import namedtuple

import psutil
import pytest

import postgresql
from trainlab.errors import UserError
from trainlab.sweeps import database, definition, queue, storage
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.queue import Owner, Queue

ME = Owner("host", 1, 1.0, "0", "mine")
Mount = namedtuple("Mount", "mountpoint fstype")


@pytest.fixture
def ordered(tmp_path):
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")
    known = {"program": str(program), "goal": "val/score", "mode": "max", "method": "grid", "trials": 3}
    known |= {"name": "margins", "space": {"margin": [1, 3, 5]}}
    definition.create(definition.Definition(**known), tmp_path / "logs")
    return definition.load("margins", tmp_path / "logs")


@pytest.fixture
def server(request, monkeypatch, free_port):
    if not postgresql.programs():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = postgresql.Server(free_port(), getattr(request, "param", "UTF8"))
    request.addfinalizer(server.remove)
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", postgresql.PASSWORD)
    return server


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_no_sweep_is_kept_in_a_file_on_a_network_drive(ordered, tmp_path, monkeypatch, kind):
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path), "ext4"), Mount(str(tmp_path), kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    with pytest.raises(UserError, match=f"is on {kind}.*--at HEAD"):
        Queue.create(ordered, logs=tmp_path / "logs")
    assert not (tmp_path / "logs/.sweeps/margins" / database.FILE).exists()
    with pytest.raises(UserError, match=f"is on {kind}.*--at HEAD"):
        definition.create(ordered.model_copy(update={"name": "new"}), tmp_path / "logs")
    assert [each.name for each in (tmp_path / "logs/.sweeps").iterdir()] == ["margins"]
    definition.create(ordered.model_copy(update={"name": "new", "at": "head"}), tmp_path / "logs")


def test_the_innermost_mount_counts(ordered, tmp_path, monkeypatch):
    mounts = [Mount("/", "nfs4"), Mount(str(tmp_path), "ext4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    Queue.create(ordered, logs=tmp_path / "logs").close()


@pytest.mark.parametrize(
    "at",
    [
        "",
        "mysql://host/db",
        "host:port",
        "host:99999",
        "postgresql:///db",
        "postgresql://host?passfile=/x",
        "postgresql://host?options=-c%20x",
        "postgresql://host?host=other",
    ],
)
def test_what_is_no_address_is_refused(at):
    with pytest.raises(UserError, match="is no address of a head"):
        database.server_options(at)


@pytest.mark.parametrize(
    "at", ["postgresql://me:hunter2hunter2@host/db", "postgresql://h?password=hunter2hunter2"]
)
def test_an_address_with_a_password_is_refused_and_not_repeated(at):
    with pytest.raises(UserError, match="TRAINLAB_HEAD_PASSWORD") as refused:
        database.server_options(at)
    assert "hunter2" not in str(refused.value)


def test_an_address_may_name_user_database_and_certificates():
    known = database._address("postgresql://me@head:5433/sweeps?sslmode=verify-full&sslrootcert=/ca.crt")
    assert known == {
        "host": "head", "port": 5433, "user": "me", "dbname": "sweeps",
        "sslmode": "verify-full", "sslrootcert": "/ca.crt",
    }  # fmt: skip
    assert database._address("head") == {
        "host": "head",
        "port": 5432,
        "user": "trainlab",
        "dbname": "trainlab",
    }


def test_a_wrong_password_is_said_and_not_worth_asking_again(ordered, tmp_path, server, monkeypatch):
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", "wrong-password")
    with pytest.raises(QueueError, match="Put its password into the environment") as refused:
        Queue.create(ordered, server.at, tmp_path / "logs")
    assert not refused.value.passing
    assert "wrong-password" not in str(refused.value)


def test_a_server_that_is_gone_is_worth_asking_again_and_is_found_when_it_is_back(ordered, tmp_path, server):
    queue = Queue.create(ordered, server.at, tmp_path / "logs")
    queue.take(ME)
    server.stop()
    for ask in (lambda: queue.beat(0, ME), queue.trials, lambda: queue.report(0, 1, 1.0)):
        with pytest.raises(QueueError) as refused:
            ask()
        assert refused.value.passing
    server.start()
    assert queue.beat(0, ME)
    assert queue.finish(0, ME, "finished", 1.0)
    queue.close()


def test_connections_that_a_restart_has_broken_are_not_used_again(ordered, tmp_path, server):
    queue = Queue.create(ordered, server.at, tmp_path / "logs")
    queue.take(ME)
    server.stop()
    server.start()
    assert queue.beat(0, ME)
    queue.close()


@pytest.mark.parametrize("server", ["SQL_ASCII"], indirect=True)
def test_a_database_that_can_not_keep_every_text_is_refused(ordered, tmp_path, server):
    with pytest.raises(UserError, match=r"encoding SQL_ASCII.*initdb -E UTF8"):
        Queue.create(ordered, server.at, tmp_path / "logs")


def test_a_server_is_never_told_the_password_itself(ordered, tmp_path, server):
    """An address in a sweep's folder may be an enemy's, whose server asks for it."""
    hba = server.folder / "data/pg_hba.conf"
    hba.write_text("host all all 127.0.0.1/32 password\n")
    server.stop()
    server.start()
    with pytest.raises(QueueError, match="authentication"):
        Queue.create(ordered, server.at, tmp_path / "logs")


def test_twelve_sweeps_of_a_head_do_not_take_twelve_connections(ordered, server, tmp_path):
    for number in range(12):
        each = ordered.model_copy(update={"name": f"margins{number}"})
        definition.create(each, tmp_path / "logs")
        Queue.create(each, server.at, tmp_path / "logs").trials()
    with database.server_options(server.at)["creator"]() as connection:
        asked = (
            "select count(*) from pg_stat_activity where usename = current_user and pid <> pg_backend_pid()"
        )
        assert connection.execute(asked).fetchone()[0] <= 4


def test_a_sweep_of_another_logs_is_refused_whatever_its_address(ordered, server, tmp_path):
    Queue.create(ordered, server.at, tmp_path / "logs")
    elsewhere = tmp_path / "elsewhere"
    definition.create(ordered, elsewhere)
    other_name = f"localhost:{server.port}"
    assert len(Queue.open(ordered, other_name, tmp_path / "logs").trials()) == 3
    with pytest.raises(UserError, match="this machine sees another logs/"):
        Queue.open(ordered, other_name, elsewhere)
    with pytest.raises(UserError, match="holds none of them: this machine sees another logs/"):
        storage.check_shared(other_name, elsewhere)
    storage.check_shared(other_name, tmp_path / "logs")


def test_a_study_that_was_made_anew_is_known_by_its_logs_still(ordered, server, tmp_path):
    Queue.create(ordered, server.at, tmp_path / "logs")
    queue.rebuild(ordered, tmp_path / "logs", at=server.at)
    said = storage.kept(server.at)
    assert storage.seen(said, tmp_path / "logs") == ["margins"]
    Queue.open(ordered, server.at, tmp_path / "logs")
