"""ENGINE=podman, and Docker without root: on a machine where both only seem to be there."""

from __future__ import annotations

import re

import pytest

from fake_machine import ENGINE_INFO, Machine
from project import CHECKOUT

PODMAN = """#!/bin/bash
echo "podman $*" >>"$FAKE/calls"
case "$1" in
  info) [[ ! -e $FAKE/broken ]] || { echo "cannot set up namespace" >&2; exit 125; }
    if [[ -e $FAKE/copies ]]; then echo vfs; else echo overlay; fi ;;
  unshare) echo 0 1000 1; [[ -e $FAKE/no-ids ]] || echo 1 100000 65536 ;;
  healthcheck) [[ ! -e $FAKE/unhealthy ]] ;;
  build) cat >>"$FAKE/dockerfiles" ;;
esac
"""
USER = """#!/bin/bash
case "$*" in -u) cat "$FAKE/uid" ;; -un) echo me ;; *) exec /usr/bin/id "$@" ;; esac
"""


@pytest.fixture
def podman(machine: Machine) -> Machine:
    """A machine whose docker speaks with Podman, started by a user."""
    machine.environment |= {"ENGINE": "podman", "XDG_RUNTIME_DIR": str(machine.tools)}
    for name, script in {"podman": PODMAN, "id": USER, "newuidmap": "", "catatonit": ""}.items():
        machine.tool(name, script)
    (machine.tools / "uid").write_text("1000\n")
    machine.engine(ENGINE_INFO | {"ServerVersion": "4.3.1"})
    return machine


def test_podman_builds_starts_and_is_asked_for_health_itself(podman: Machine) -> None:
    said = podman.make("up").stdout
    assert said.startswith("Podman 4.3, no NVIDIA in /etc/cdi: CPU")
    built = re.findall(r"^podman build .*--file - --tag (\S+) ", podman.calls(), re.M)
    name = podman.settings["COMPOSE_PROJECT_NAME"]
    assert built == [
        f"docker.io/library/trainlab-tensorboard:{name}",
        f"docker.io/library/trainlab-jupyter:{name}-cpu",
    ]
    assert "--build-arg=BASE_IMAGE=debian:12 --build-arg=TRACKERS= ." in podman.calls()
    assert "compose up --detach --no-build\n" in podman.calls()
    assert podman.settings["COMPOSE_FILE"] == "docker-compose.yml:docker-compose.podman.yml"
    assert podman.make("status").stdout.count("healthy") == 2
    (podman.tools / "unhealthy").touch()
    assert podman.make("status").stdout.count("starting") == 2


def test_podman_builds_without_the_locks_that_it_never_lets_go_of(podman: Machine) -> None:
    podman.make("up")
    given = (podman.tools / "dockerfiles").read_text()
    kept = [(CHECKOUT / service / "Dockerfile").read_text() for service in ("tensorboard", "jupyter")]
    assert "sharing=locked" in kept[1]
    assert given == "".join(kept).replace(",sharing=locked", "")


def test_docker_gets_its_own_compose_files_back(podman: Machine) -> None:
    podman.make("up")
    podman.make("up", ENGINE="docker")
    assert podman.settings["COMPOSE_FILE"] == "docker-compose.yml"


def test_a_gpu_comes_by_cdi(podman: Machine) -> None:
    podman.make("up", GPU="1")
    files = ("gpu", "podman", "podman.gpu")
    expected = ":".join(["docker-compose.yml", *(f"docker-compose.{name}.yml" for name in files)])
    assert podman.settings["COMPOSE_FILE"] == expected


@pytest.mark.parametrize(
    ("lacking", "found", "help_"),
    [
        ("uid", "it is for a user", "Start make as yourself"),
        ("no-ids", "user me has no subordinate ids", "sudo usermod --add-subuids"),
        ("broken", "`podman info` fails: cannot set up namespace", ""),
        (
            "copies",
            "it keeps a whole copy of each layer (its storage is vfs)",
            "sudo apt install fuse-overlayfs",
        ),
        ("silent", "does not answer", "systemctl --user enable --now podman.socket"),
    ],
)
def test_what_keeps_podman_from_working_is_one_sentence_with_what_helps(
    podman: Machine, lacking: str, found: str, help_: str
) -> None:
    (podman.tools / lacking).write_text("0\n")
    done = podman.make("up", check=False)
    assert done.returncode == 2
    assert f"ENGINE=podman, but {found}" in done.stdout.replace(
        f"its socket {podman.tools}/podman/podman.sock ", ""
    )
    assert help_ in done.stdout
    assert "compose up" not in podman.calls()
    assert not (podman.folder / ".env").exists()


def test_podman_pushes_no_images(podman: Machine) -> None:
    done = podman.make("publish", "REGISTRY=images.example/lab", check=False)
    assert done.returncode == 2
    assert "images are built and pushed by Docker, and here: Podman 4.3" in done.stdout


def rootless(machine: Machine) -> None:
    machine.engine(ENGINE_INFO | {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]})


def test_in_docker_without_root_user_0_is_the_caller(machine: Machine) -> None:
    rootless(machine)
    said = machine.make("up").stdout
    assert "without root" in said
    assert (machine.settings["TRAINLAB_UID"], machine.settings["TRAINLAB_GID"]) == ("0", "0")


def test_docker_without_root_refuses_a_user_who_would_be_nobody_outside(machine: Machine) -> None:
    machine.make("up")
    machine.make("down")
    rootless(machine)
    done = machine.make("up", check=False)
    assert done.returncode == 2
    assert "Put TRAINLAB_UID=0 and TRAINLAB_GID=0 into .env" in done.stdout
    assert machine.calls().count("compose up") == 1
