"""`.venv`: made, moved, and what is installed into it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from fake_machine import Machine, environment_of
from project import copy_checkout

MAKE_ENVIRONMENT = """#!/bin/bash
[[ "$*" == "-m venv .venv" ]] || exit 0
mkdir -p .venv/bin
for name in pip python; do cp /bin/true .venv/bin/$name; done
"""


@pytest.mark.parametrize("name", ["plain", "a b/lab", "x" * 150])
@pytest.mark.parametrize("change", ["none", "moved", "copied"])
def test_an_environment_that_was_moved_or_copied_is_made_anew(
    machine: Machine, tmp_path: Path, name: str, change: str
) -> None:
    made_in = tmp_path / name
    made_in.parent.mkdir(exist_ok=True)
    machine.folder = machine.folder.rename(made_in)
    environment_of(machine.folder, machine.tools / "pip")
    (machine.folder / "src/trainlab/__init__.py").write_text("a mistake of today's\n")
    elsewhere = made_in.parent / "elsewhere"
    if change == "moved":
        machine.folder = machine.folder.rename(elsewhere)
    if change == "copied":
        machine.folder = shutil.copytree(made_in, elsewhere, symlinks=True)
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    said = machine.make("build", ENGINE="local", GPU="0").stdout
    assert ("making .venv anew" in said) is (change != "none"), said
    assert (machine.folder / ".venv/bin/trainlab").exists() is (change == "none")


def test_an_environment_that_is_a_link_to_another_clone_s_is_left_alone(
    machine: Machine, tmp_path: Path
) -> None:
    other = copy_checkout(tmp_path / "other")
    environment_of(other, machine.tools / "pip")
    (machine.folder / ".venv").symlink_to(other / ".venv")
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    assert "anew" not in machine.make("build", ENGINE="local", GPU="0").stdout
    assert (machine.folder / ".venv").is_symlink()


def test_a_python_that_is_not_used_is_named(machine: Machine) -> None:
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    machine.tool("old", "#!/bin/bash\n[[ $1 != --version ]] || echo Python 3.9.2\nexit 1\n")
    said = machine.make("build", ENGINE="local", GPU="0", PYTHON="old").stdout
    assert "PYTHON=old is no Python 3.11 (Python 3.9.2): looking for another" in said
    shutil.rmtree(machine.folder / ".venv")
    environment_of(machine.folder, machine.tools / "pip")
    said = machine.make("build", ENGINE="local", GPU="0", PYTHON=str(machine.tools / "old")).stdout
    assert re.search(r"PYTHON=\S+/old is not used: .venv is there already", said)
    assert "PYTHON" not in machine.make("build", ENGINE="local", GPU="0", PYTHON=sys.executable).stdout


def test_without_docker_each_chosen_tracker_is_installed_once(machine: Machine) -> None:
    calls = machine.tools / "pip"
    environment_of(machine.folder, calls)
    for chosen in ("wandb", "wandb, mlflow", "mlflow wandb"):
        machine.make("build", ENGINE="local", GPU="0", TRACKERS=chosen)
        installed = re.findall(r"-r jupyter/trackers/(\w+).lock", calls.read_text())
        assert installed == (["wandb"] if chosen == "wandb" else ["wandb", "mlflow"])
