"""What `make up SHARE=NAME` and `make password` refuse and write, in front of engines that are none."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, module
from terminal import in_terminal

if TYPE_CHECKING:
    from fake_machine import Machine

HASH = "argon2:$argon2id$v=19$m=10240,t=10,p=8$c2FsdHNhbHQ$aGFzaA"
NAME = "SHARE=lab.example.org"
WITH_HASH = {"SHARE_PASSWORD_HASH": HASH, "SHARE_PORT": "18443", "SHARE_HTTP_PORT": "18080"}
# what docker says of a JupyterLab that runs shared
RUNS_SHARED = """  "compose ps --all --quiet jupyter") echo a-jupyter ;;
  "inspect --format"*a-jupyter) printf 'PATH=/bin\\nSHARE=lab.example.org\\n' ;;
"""


def refused(machine: Machine, *words: str, **settings: str) -> str:
    """Return why a start is refused, which must leave nothing behind."""
    done = machine.make("up", *words, check=False, **settings)
    assert done.returncode == 2, done.stdout
    assert not machine.built() and "compose up" not in machine.calls()
    assert not (machine.folder / ".env").exists()
    return done.stdout


@pytest.mark.parametrize("engine", ["docker", "local"])
def test_without_a_password_nothing_is_shared(machine: Machine, engine: str) -> None:
    assert "`make password` asks for one" in refused(machine, NAME, ENGINE=engine)


@pytest.mark.parametrize(
    "name",
    ["10.0.0.5", "LAB.example.org", "https://lab", "lab:8443", "a b", "-x", "lab..org", "{evil}", "x/y"],
)
def test_what_is_no_name_is_refused(machine: Machine, name: str) -> None:
    assert "is no name of this machine" in refused(machine, f"SHARE={name}", **WITH_HASH)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"SHARE_PORT": "99999"}, "SHARE_PORT=99999 is not a port"),
        ({"SHARE_HTTP_PORT": "18443"}, "SHARE_PORT and SHARE_HTTP_PORT are both 18443"),
        ({"SHARE_ADDRESS": "lab"}, "SHARE_ADDRESS=lab is no address"),
        ({"SHARE_CULL": "soon"}, "SHARE_CULL=soon is no time"),
        ({"SHARE_ACME": "{evil}"}, "SHARE_ACME={evil} is no mail address"),
        ({"SHARE_TLS": "nowhere"}, "SHARE_TLS=nowhere has no server.crt"),
        ({"SHARE_TLS": "x", "SHARE_ACME": "a@example.org"}, "set one of the two"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(machine: Machine, setting: dict[str, str], words: str) -> None:
    assert words in refused(machine, NAME, **WITH_HASH | setting)


def test_an_engine_that_cannot_share_is_refused(machine: Machine) -> None:
    machine.engine({"ServerVersion": "26.1"}, compose="2.23.3")
    assert "Compose 2.23.3 is older than 2.24" in refused(machine, NAME, **WITH_HASH)
    said = refused(machine, NAME, ENGINE="local", SHARE_ACME="a@example.org", **WITH_HASH)
    assert "SHARE_ACME needs Docker" in said


def test_what_was_asked_for_stands_in_env_until_it_is_taken_back(machine: Machine) -> None:
    said = machine.make("up", NAME, SHARE_CULL="2h", **WITH_HASH).stdout
    assert "set SHARE=lab.example.org in .env: shared until" in said
    known = machine.settings
    assert (known["SHARE"], known["SHARE_PORT"], known["SHARE_CULL"]) == ("lab.example.org", "18443", "2h")
    assert known["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.share.yml"
    machine.make("down")
    machine.make("up", SHARE_PASSWORD_HASH=HASH)
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.share.yml"
    machine.make("down")
    machine.make("up", "SHARE=")
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml"
    assert machine.settings["SHARE"] == ""


def test_sharing_builds_caddy_alone_and_jupyterlab_anew_only_where_that_has_changed(machine: Machine) -> None:
    machine.make("up")
    machine.make("down")
    machine.make("up", NAME, **WITH_HASH)
    assert machine.built() == 1
    assert machine.calls().splitlines().count("compose build share") == 1


def test_a_running_stack_is_not_started_anew_to_share_it(machine: Machine) -> None:
    machine.make("up")
    before = machine.calls().count("compose up")
    done = machine.make("up", NAME, check=False, **WITH_HASH)
    assert done.returncode == 2
    assert "the stack runs already, not shared" in done.stdout
    assert "First `make down`" in done.stdout
    assert machine.calls().count("compose up") == before
    assert "SHARE" not in machine.settings


def test_a_running_stack_is_not_shared_under_another_name(machine: Machine) -> None:
    machine.make("up", NAME, **WITH_HASH)
    docker = (machine.tools / "docker").read_text()
    machine.tool("docker", docker.replace('case "$*" in\n', 'case "$*" in\n' + RUNS_SHARED, 1))
    done = machine.make("up", "SHARE=other.example.org", check=False)
    assert done.returncode == 2
    assert "the stack runs already, shared as lab.example.org, and to change that" in done.stdout
    assert machine.settings["SHARE"] == "lab.example.org"


def test_caddy_takes_headers_as_large_as_the_door_behind_it_does() -> None:
    limits = re.findall(r"max_header_size (\d+)KiB\n", (CHECKOUT / "share/Caddyfile").read_text())
    assert limits == [str(module("jupyter/door.py").HEADERS // 1024)]


def hashing(machine: Machine) -> None:
    """Let the container of this machine say a hash, and note what it was told, and how."""
    docker = (machine.tools / "docker").read_text()
    case = f"""  "compose exec"*passwd* | "compose run"*passwd*) cat >"$FAKE/told"; echo '{HASH}' ;;\n"""
    machine.tool("docker", docker.replace('case "$*" in\n', 'case "$*" in\n' + case))


def typed(machine: Machine, *lines: str) -> str:
    """Type lines at `make password`; return all that the terminal has shown."""
    command = ["make", "--no-print-directory", "password"]
    with in_terminal(command, machine.folder, machine.environment | {"TERM": "dumb"}) as terminal:
        for question, line in zip(("or more): ", "Once more: "), lines, strict=False):
            terminal.until(question)
            terminal.type(f"{line}\n")
        return terminal.until("")


def test_a_password_is_asked_for_twice_unseen_and_its_hash_alone_is_kept(machine: Machine) -> None:
    hashing(machine)
    said = typed(machine, "correct horse 'battery", "correct horse 'battery")
    assert "wrote SHARE_PASSWORD_HASH into .env" in said
    assert "horse" not in said + machine.calls() + (machine.folder / ".env").read_text()
    assert (machine.tools / "told").read_text() == "correct horse 'battery"
    assert machine.settings["SHARE_PASSWORD_HASH"] == f"'{HASH}'", (
        "quoted: Compose would look for variables in it"
    )
    assert stat.S_IMODE((machine.folder / ".env").stat().st_mode) == 0o600
    (machine.folder / ".env").chmod(0o644)
    typed(machine, "another horse battery", "another horse battery")
    text = (machine.folder / ".env").read_text()
    assert len(re.findall("^SHARE_PASSWORD_HASH", text, re.M)) == 1
    assert stat.S_IMODE((machine.folder / ".env").stat().st_mode) == 0o600, (
        "whoever has the hash can guess at leisure"
    )


def test_a_short_password_and_two_that_differ_are_refused(machine: Machine) -> None:
    hashing(machine)
    assert "it has 11 characters, and 12 are the least" in typed(machine, "12345678901")
    assert "the two are not the same" in typed(machine, "correct horse battery", "correct horse batterx")
    done = machine.make("password", check=False)
    assert done.returncode == 2 and "no password was given" in done.stdout
    assert "SHARE_PASSWORD_HASH" not in machine.settings
