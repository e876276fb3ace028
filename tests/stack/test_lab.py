"""A lab that `trainlab new` made: its demo and its tests, at once, on both engines."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, Project, clean_environment, own_images
from trainlab.lab import create

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


def lab(folder: Path, free_port: Callable[[], int], **settings: str) -> Project:
    create.new(folder, ["news"])
    folder.chmod(0o755)  # the containers' user looks into it
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    return Project(folder, {"GPU": "0", **ports, **settings})


def trains_and_tests(project: Project) -> None:
    said = project.make("demo").stdout
    assert "finished" in said
    assert "open notebooks/first.ipynb" in said.rstrip().splitlines()[-1]
    (run,) = project.runs()
    assert run["status"] == "finished"
    assert run["best"]["val/accuracy"] > 0.9
    assert "2 passed" in project.make("test").stdout
    assert project.make("status").stdout.count("healthy") == 2


def test_without_docker(tmp_path: Path, free_port: Callable[[], int]) -> None:
    project = lab(tmp_path / "my-lab", free_port, ENGINE="local")
    try:
        trains_and_tests(project)
    finally:
        project.make("down")


@pytest.mark.docker
def test_with_docker(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> None:
    own_images()  # whose layers, and whose wheel of torch, are the lab's
    project = lab(tmp_path_factory.mktemp("docker") / "my-lab", free_port, ENGINE="docker")
    for wheel in (CHECKOUT / "jupyter/wheels").glob("torch-*.whl"):
        os.link(wheel, project.folder / "jupyter/wheels" / wheel.name)
    try:
        trains_and_tests(project)
    finally:
        down = ["docker", "compose", "down", "--volumes", "--rmi=all", "--timeout", "3"]
        subprocess.run(down, cwd=project.folder, env=clean_environment(), check=True)
