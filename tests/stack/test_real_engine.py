"""What `make` does with a real Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, Project, clean_environment, copy_checkout, own_images, status_of
from terminal import CTRL_C, in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def docker_project(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Project]:
    """Copy the checkout for the real engine; its volume and containers are gone at the end."""
    folder = copy_checkout(tmp_path_factory.mktemp("docker"))
    own_images()  # whose layers, and whose wheel of torch, are this one's
    for wheel in (CHECKOUT / "jupyter/wheels").glob("*.whl"):
        os.link(wheel, folder / "jupyter/wheels" / wheel.name)
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    yield Project(folder, {"ENGINE": "docker", "GPU": "0", "JUPYTER_TOKEN": "a&b+c #d%e", **ports})
    subprocess.run(
        ["docker", "compose", "down", "--volumes", "--rmi=all", "--timeout", "3"],
        cwd=folder,
        env=clean_environment(),
        check=True,
    )


@pytest.mark.docker
@pytest.mark.slow
def test_demo_trains_prints_its_result_and_leaves_the_stack_up(docker_project: Project) -> None:
    said = docker_project.make("demo").stdout
    assert "finished" in said
    assert "`make down` stops both and frees everything." in said
    assert "open notebooks/START.ipynb" in said.rstrip().splitlines()[-1]
    (run,) = docker_project.runs()
    assert (run["experiment"], run["status"]) == ("news", "finished")
    assert docker_project.make("status").stdout.count("healthy") == 2


SMALL_STACK = """
services:
  jupyter:
    {image: "debian:bookworm-slim", pull_policy: never, init: true, command: sleep 900,
     volumes: ["./trainlab:/usr/local/bin/trainlab"]}
  tensorboard: {image: "debian:bookworm-slim", pull_policy: never, init: true, command: sleep 900}
"""


LONG_RUN = """#!/bin/bash
trap 'echo saved on INT; exit 130' INT
trap 'echo saved on TERM; exit 143' TERM
if [[ -t 0 && -t 1 ]]; then echo in a terminal; fi
echo at work
for _ in {1..600}; do sleep 0.1; done
"""


@pytest.fixture
def small_stack(tmp_path: Path) -> Iterator[Project]:
    """A stack for the real engine that needs no image of ours, in which `trainlab` waits for a signal."""
    project = Project(copy_checkout(tmp_path / "small"), {"ENGINE": "docker", "GPU": "0"})
    (project.folder / "docker-compose.yml").write_text(SMALL_STACK)
    (project.folder / "trainlab").write_text(LONG_RUN)
    (project.folder / "trainlab").chmod(0o755)
    (project.folder / ".env").write_text(f"COMPOSE_PROJECT_NAME=small{os.getpid()}\n")
    compose = ["docker", "compose"]
    where = {"cwd": project.folder, "env": clean_environment(), "capture_output": True}
    subprocess.run([*compose, "up", "--detach"], check=True, **where)
    yield project
    subprocess.run([*compose, "down", "--timeout", "1"], check=True, **where)


@pytest.mark.docker
def test_a_signal_reaches_the_process_in_a_real_container_with_a_terminal_and_without(
    small_stack: Project,
) -> None:
    environment = clean_environment() | small_stack.environment
    command = ["make", "run", "ARGS=news"]
    with in_terminal(command, small_stack.folder, environment) as terminal:
        terminal.until("in a terminal")
        terminal.until("at work")
        terminal.type(CTRL_C)
        terminal.until("saved on INT")
    for sent, name in ((signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")):
        assert f"saved on {name}" in small_stack.signalled(sent, *command[1:])[1]
    with in_terminal(["make", "shell"], small_stack.folder, environment) as terminal:
        terminal.until(":/# ")
        terminal.type("echo $((6 * 7)); exit\n")
        terminal.until("42\r\n")


@pytest.mark.docker
def test_another_clone_s_containers_are_refused_on_the_real_engine(
    small_stack: Project, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    second = Project(copy_checkout(tmp_path / "second"), small_stack.environment | ports)
    shutil.copy(small_stack.folder / ".env", second.folder)
    for verb in ("up", "down"):
        assert f"belongs to containers of {small_stack.folder}" in second.make(verb, check=False).stdout
    compose = ["docker", "compose", "ps", "--quiet", "--status", "running"]
    running = subprocess.check_output(compose, cwd=small_stack.folder, env=clean_environment())
    assert len(running.split()) == 2


@pytest.mark.docker
@pytest.mark.slow
def test_the_real_engine_goes_up_and_down_as_often_as_told(docker_project: Project) -> None:
    (token,) = re.findall(r"/lab\?token=(\S+)", docker_project.make("up").stdout)
    assert status_of(f"{docker_project.jupyter}/api/status?token={token}") == 200
    assert status_of(f"{docker_project.tensorboard}/data/environment") == 200
    said = docker_project.make("status").stdout
    assert said.count("healthy") == 2
    assert token in said
    assert "Created" not in docker_project.make("up").stdout
    shell = docker_project.make(
        "shell", "ARGS=-c 'command -v trainlab; id -u; echo token:$$JUPYTER_TOKEN:'"
    ).stdout
    assert "token::" in shell
    assert re.search(r"^[1-9]\d*$", shell, re.M)
    docker_project.make("down")
    assert status_of(f"{docker_project.jupyter}/api") == 0
    docker_project.make("down")
    assert "down" in docker_project.make("status").stdout
