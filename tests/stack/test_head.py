"""The head: what `make head` refuses and says, and the database on the real engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

import hosts
from containers import Stack, own
from project import CHECKOUT, Project, clean_environment, copy_checkout, lend_images
from trainlab.hosts import rendezvous
from trainlab.run import record
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_machine import Machine


def test_a_password_is_drawn_once_and_never_said(machine: Machine) -> None:
    machine.make("up")
    assert "HEAD_PASSWORD" not in machine.settings, "who has no head needs none"
    said = machine.make("head").stdout
    password = machine.settings["HEAD_PASSWORD"]
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert password not in said + machine.calls()
    assert f"127.0.0.1:{machine.environment['HEAD_PORT']}" in said
    machine.make("head")
    assert machine.settings["HEAD_PASSWORD"] == password
    assert (machine.folder / ".env").stat().st_mode & 0o077 == 0


def test_an_empty_password_in_the_settings_is_filled_in(machine: Machine) -> None:
    (machine.folder / ".env").write_text("JUPYTER_TOKEN=mine\nHEAD_PASSWORD=\nHEAD_PORT=5444")
    machine.make("head")
    assert machine.settings["JUPYTER_TOKEN"] == "mine"
    assert machine.settings["HEAD_PORT"] == "5444"
    assert len(machine.settings["HEAD_PASSWORD"]) == 48


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"HEAD_PORT": "none"}, "HEAD_PORT=none is not a port"),
        ({"HEAD_STORE_PORT": "0"}, "HEAD_STORE_PORT=0 is not a port"),
        ({"HEAD_PORT": "29400", "HEAD_STORE_PORT": "29400"}, "HEAD_PORT and HEAD_STORE_PORT are both 29400"),
        ({"HEAD_ADDRESS": "example.org"}, "HEAD_ADDRESS=example.org is no address of this machine"),
        ({"HEAD_TLS": "nowhere"}, "HEAD_TLS=nowhere has no server.crt"),
    ],
)
def test_settings_that_would_fail_later_are_refused_before_anything_is_made(
    machine: Machine, settings: dict[str, str], words: str
) -> None:
    done = machine.make("head", check=False, **settings)
    assert done.returncode == 2
    assert words in done.stdout
    assert "compose up" not in machine.calls()
    assert "compose build" not in machine.calls()
    assert not (machine.folder / ".env").exists()


def test_an_address_that_others_reach_is_said_with_what_keeps_it(machine: Machine, tmp_path: Path) -> None:
    said = machine.make("head", HEAD_ADDRESS="10.0.0.5").stdout
    assert "never the internet" in said
    assert "HEAD_TLS in .env names a certificate" in said
    for name in ("server.crt", "server.key"):
        (tmp_path / name).touch()
    assert "certificate" not in machine.make("head", HEAD_ADDRESS="0.0.0.0", HEAD_TLS=str(tmp_path)).stdout
    assert "internet" not in machine.make("head").stdout


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", ""),
        ("192.168.7.2", ""),
        ("172.31.0.1", ""),
        ("[fd00::5]", ""),
        ("172.32.0.1", "has no password"),
        ("8.8.8.8", "has no password"),
        ("0.0.0.0", "has no password"),
        ("[2606:4700::1]", "has no password"),
    ],
)
def test_the_store_is_started_where_the_internet_does_not_reach_it(
    machine: Machine, address: str, reason: str
) -> None:
    said = machine.make("head", HEAD_ADDRESS=address).stdout
    (up,) = [line for line in machine.calls().splitlines() if line.startswith("compose up")]
    assert up.endswith("head" if reason else "head store")
    (line,) = [line for line in said.splitlines() if line.startswith("store ")]
    assert (reason or f"--join {address}:{machine.environment['HEAD_STORE_PORT']}") in line


def test_a_store_that_does_not_become_healthy_takes_no_head_with_it(machine: Machine) -> None:
    (machine.tools / "unhealthy-store").touch()
    done = machine.make("head", check=False)
    assert done.returncode == 2
    assert "the store did not become healthy, and was removed; the head goes on" in done.stdout
    removed = [line for line in machine.calls().splitlines() if line.startswith("compose rm")]
    assert removed == ["compose rm --stop --force store"]


def test_what_runs_is_shown_and_the_head_only_where_there_is_one(machine: Machine) -> None:
    assert "head" not in machine.make("status").stdout


def test_a_head_without_a_store_is_shown_without_one(machine: Machine) -> None:
    stack = machine.folder / ".stack"
    stack.mkdir(exist_ok=True)
    supervisor = subprocess.Popen(["sleep", "60"], env=os.environ | {"TRAINLAB_STACK": str(stack)})
    try:
        (stack / "head.pid").write_text(str(supervisor.pid))
        (stack / "head.port").write_text(machine.environment["HEAD_PORT"])
        said = machine.make("status", ENGINE="local").stdout
        assert re.search("^head ", said, re.M)
        assert "store" not in said
    finally:
        supervisor.kill()
        supervisor.wait()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Stack]:
    """A head of its own on the real engine, started by make; gone at the end."""
    folder = copy_checkout(tmp_path_factory.mktemp("head") / f"head{os.getpid()}")
    own(folder)
    ports = {f"{name}_PORT": str(free_port()) for name in ("HEAD", "HEAD_STORE", "JUPYTER", "TENSORBOARD")}
    settings = {"HEAD_PASSWORD": "it's \\one\" $of them"}
    project = Project(folder, {"ENGINE": "docker", "GPU": "0", **ports, **settings})
    try:
        project.make("head")
        yield Stack(folder, ports | settings | {"COMPOSE_PROFILES": "head"})
    finally:
        project.make("down", check=False)
        compose = [
            "docker",
            "compose",
            "--profile",
            "*",
            "down",
            "--volumes",
            "--rmi=all",
            "--remove-orphans",
        ]
        subprocess.run(compose, cwd=folder, env=clean_environment(), check=False, capture_output=True)


def signed_in(head: Stack, **changes: str) -> psycopg.Connection:
    known = {"user": "trainlab", "dbname": "trainlab", "password": head.environment["HEAD_PASSWORD"]}
    port = int(head.environment["HEAD_PORT"])
    return psycopg.connect(host="127.0.0.1", port=port, connect_timeout=5, **known | changes)


def answers(head: Stack) -> bool:
    try:
        signed_in(head).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.docker
def test_the_database_is_utf_8_and_its_one_role_owns_no_more_than_it(head: Stack) -> None:
    with signed_in(head) as connection:
        asked = "select current_setting('server_encoding'), current_setting('jit'), rolsuper, rolcreaterole"
        row = connection.execute(f"{asked} from pg_roles where rolname = current_user").fetchone()
        assert row == ("UTF8", "off", False, False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("copy (select 1) to program 'true'")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"password": ""}, "no password supplied"),
        ({"user": "head", "dbname": "postgres"}, r"no pg_hba\.conf entry"),
    ],
)
def test_a_wrong_password_and_any_other_role_are_refused(
    head: Stack, changes: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(psycopg.OperationalError, match=words):
        signed_in(head, **changes)


@pytest.mark.docker
def test_it_runs_hardened_on_loopback_alone_and_shows_its_password_to_nobody(head: Stack) -> None:
    state = head.state("head")
    host = state["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert {each["HostIp"] for each in host["PortBindings"]["5432/tcp"]} == {"127.0.0.1"}
    told = head.inside("head", "grep -e ^Uid -e ^CapEff /proc/1/status; touch /x 2>&1 || true").stdout
    assert "Uid:\t1000" in told
    assert "CapEff:\t0000000000000000" in told
    assert "Read-only file system" in told
    lines = head.inside("head", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "postgres -D" in lines
    assert "of them" not in lines + head.compose("logs", "head").stdout


@pytest.mark.docker
def test_a_restart_a_kill_and_a_new_password_keep_the_data(head: Stack) -> None:
    with signed_in(head) as connection:
        connection.execute("create table kept as select 'Größe' as word")
    head.compose("restart", "head")
    until(lambda: answers(head), "the head answers")
    pid = head.state("head")["State"]["Pid"]
    head.run("docker", "kill", "--signal", "KILL", head.state("head")["Id"])
    head.compose("start", "head")
    until(lambda: answers(head), "the head answers")
    assert head.state("head")["State"]["Pid"] != pid
    head.environment["HEAD_PASSWORD"] = "another"
    head.compose("up", "--detach", "--no-deps", "head")
    until(lambda: answers(head), "the head answers")
    with signed_in(head) as connection:
        assert connection.execute("select word from kept").fetchone() == ("Größe",)


@pytest.mark.docker
@pytest.mark.slow
def test_the_store_of_trainings_comes_with_jupyter_s_image_hardened_and_on_loopback_alone(
    head: Stack,
) -> None:
    project = Project(head.folder, {"ENGINE": "docker", "GPU": "0", **head.environment})
    assert "not started: it runs in JupyterLab's image" in project.make("head").stdout
    lend_images(Project(head.folder).settings["COMPOSE_PROJECT_NAME"])
    project.make("head")
    place = rendezvous.Endpoint("127.0.0.1", int(head.environment["HEAD_STORE_PORT"]))
    assert rendezvous.answers(place)
    state = head.state("store")
    assert (state["HostConfig"]["ReadonlyRootfs"], state["HostConfig"]["CapDrop"]) == (True, ["ALL"])
    assert {each["HostIp"] for each in state["HostConfig"]["PortBindings"]["29400/tcp"]} == {"127.0.0.1"}
    assert state["Mounts"] == []
    project.make("unhead")
    assert not rendezvous.answers(place)
    project.make("head")


@pytest.mark.docker
def test_without_a_password_it_does_not_start(head: Stack) -> None:
    done = head.compose("run", "--rm", "--no-deps", "head", check=False, HEAD_PASSWORD="")
    assert done.returncode == 2
    assert "HEAD_PASSWORD is empty" in done.stderr


@pytest.mark.docker
def test_with_a_certificate_nobody_gets_in_without_tls(head: Stack, tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    subject = ["-subj", "/CN=head", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    own(tmp_path)
    tmp_path.chmod(0o755)
    head.compose("up", "--detach", "--no-deps", "head", HEAD_TLS=str(tmp_path))
    until(lambda: answers(head), "the head answers")
    with pytest.raises(psycopg.OperationalError, match=r"no encryption"):
        signed_in(head, sslmode="disable")
    with signed_in(head, sslmode="verify-full", sslrootcert=str(certificate)) as connection:
        asked = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
        assert connection.execute(asked).fetchone() == (True, "TLSv1.3")
    head.compose("up", "--detach", "--no-deps", "head")


def test_the_wheel_carries_nobody_s_certificate() -> None:
    listed = (CHECKOUT / "src/trainlab/lab/stack.txt").read_text() + (CHECKOUT / "MANIFEST.in").read_text()
    assert "head/*" not in listed and "graft head" not in listed


@pytest.mark.docker
@pytest.mark.slow
def test_workers_of_compose_take_trials_of_the_head_beside_them_and_end(head: Stack) -> None:
    """One trial for each of a leader and two workers, none of which goes on before all three are at work."""
    lend_images(Project(head.folder).settings["COMPOSE_PROJECT_NAME"])
    (head.folder / "notebooks/tiny.py").write_text(hosts.SCRIPT)
    own(head.folder / "notebooks")
    sweep = ["trainlab", "sweep", "notebooks/tiny.py", "x=1.0,2.0,3.0", "--goal", hosts.GOAL, "--mode", "min"]
    sweep += ["--name", hosts.SWEEP, "--slots", "1", "--at", "head"]
    head.compose("run", "--detach", "--no-deps", "jupyter", *sweep)
    runs = hosts.Hosts(head.folder, "compose")
    until((head.folder / f"logs/.sweeps/{hosts.SWEEP}/storage").exists, "the sweep has begun")
    head.compose("up", "--detach", "--no-deps", "--scale", "worker=2", "worker")
    folders = runs.held(3)
    assert len({hosts.writers(folder)[0] for folder in folders}) == 3
    (head.folder / "notebooks/go").touch()
    until(lambda: all(record.read(each).status == "finished" for each in folders), "all runs finish")
    listed = ["ps", "--all", "--format", "{{.State}} {{.ExitCode}}", "worker"]
    ended = lambda: head.compose(*listed, COMPOSE_PROFILES="head,worker").stdout.split("\n")[:2]  # noqa: E731
    until(lambda: ended() == ["exited 0"] * 2, "the workers end")
