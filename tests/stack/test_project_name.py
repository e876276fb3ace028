"""Whose containers, volume and images are a folder's: its project name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fake_machine import Machine


def names(machine: Machine) -> tuple[str, str]:
    """Return the project's name as .env says it, and as the last `docker compose` was told."""
    return machine.settings["COMPOSE_PROJECT_NAME"], (machine.tools / "project").read_text().strip()


@pytest.mark.parametrize(
    ("folder", "readable"),
    [
        ("lab", "lab"),
        ("My Lab.2", "mylab2"),
        ("深度学习", "trainlab"),
        ("_", "trainlab"),
        ("x" * 90, "x" * 24),
    ],
)
def test_a_folder_s_project_name_comes_from_its_whole_path_and_is_written_once(
    tmp_path: Path, machine: Machine, folder: str, readable: str
) -> None:
    machine.folder = machine.folder.rename(tmp_path / folder)
    machine.make("up")
    written, used = names(machine)
    assert used == written
    assert re.fullmatch(rf"{readable}-[0-9a-f]{{8}}", written)
    (tmp_path / "elsewhere").mkdir()
    again = shutil.copytree(machine.folder, tmp_path / "elsewhere" / folder)
    machine.make("up")
    assert names(machine) == (written, written)
    (again / ".env").unlink()
    machine.folder = again
    machine.make("up")
    assert names(machine)[0].startswith(f"{readable}-")
    assert written not in names(machine), "the last name alone is not the identity"


def test_a_clone_that_has_containers_already_keeps_the_name_that_they_have(machine: Machine) -> None:
    (machine.tools / "containers").write_text(f"project {machine.folder}\n")
    (machine.folder / ".env").write_text("JUPYTER_TOKEN=abc")
    machine.make("up")
    assert names(machine) == ("project", "project")
    assert machine.token == "abc"


def test_a_clone_that_was_used_keeps_the_volume_of_its_folder_s_name(machine: Machine) -> None:
    (machine.tools / "project_home").touch()
    machine.make("status")
    assert names_in_use(machine) != "project", "a fresh clone has nothing to keep"
    (machine.folder / "logs/news").mkdir()
    machine.make("up")
    assert names(machine) == ("project", "project")


def test_the_volume_of_another_folder_s_containers_is_not_taken(machine: Machine, tmp_path: Path) -> None:
    (machine.tools / "project_home").touch()
    (machine.tools / "containers").write_text(f"project {tmp_path}\n")
    (machine.folder / "logs/news").mkdir()
    machine.make("up")
    assert "project" not in names(machine)


def names_in_use(machine: Machine) -> str:
    return (machine.tools / "project").read_text().strip()


@pytest.mark.parametrize("verb", ["up", "down", "run ARGS=news", "clean YES=1", "status", "build"])
def test_another_folder_s_project_is_refused_before_anything_is_stopped(
    machine: Machine, tmp_path: Path, verb: str
) -> None:
    other = tmp_path / "two\nlines"
    other.mkdir()
    (machine.tools / "containers").write_text(f"lab {tmp_path / 'gone'}\nlab {tmp_path}\n")
    (machine.folder / ".env").write_text("COMPOSE_PROJECT_NAME=lab\n")
    done = machine.make(*verb.split(), check=False)
    assert done.returncode == 2
    assert f"the project name lab belongs to containers of {tmp_path}, which" in done.stdout
    assert re.search(r"COMPOSE_PROJECT_NAME=project-[0-9a-f]{8} in .env", done.stdout)
    assert not re.search("^compose (?!version)", machine.calls(), re.M), "nothing was asked of Compose"


def test_a_moved_folder_keeps_its_name_and_a_copy_gets_one_of_its_own(
    machine: Machine, tmp_path: Path
) -> None:
    machine.make("up")
    first, _ = names(machine)
    (machine.tools / "containers").write_text(f"{first} {machine.folder}\n")
    machine.folder = machine.folder.rename(tmp_path / "moved")
    machine.make("down")
    assert names_in_use(machine) == first
    machine.make("up")
    assert names(machine) == (first, first)

    machine.folder = shutil.copytree(machine.folder, tmp_path / "copy")
    said = machine.make("up").stdout
    assert "set COMPOSE_PROJECT_NAME=copy-" in said
    written, used = names(machine)
    assert written == used != first
    assert (machine.folder / ".env").read_text().count("COMPOSE_PROJECT_NAME=") == 1


def test_a_name_that_the_shell_gives_is_for_this_time_alone(machine: Machine) -> None:
    machine.make("up")
    written, _ = names(machine)
    machine.make("up", COMPOSE_PROJECT_NAME="mine")
    assert names(machine) == (written, "mine")
    machine.make("up", COMPOSE_PROJECT_NAME="")
    assert names(machine) == (written, written)


def test_clean_removes_the_images_of_this_folder_alone(machine: Machine) -> None:
    machine.make("up")
    name, _ = names(machine)
    machine.make("clean", YES="1")
    (removal,) = re.findall("^image rm --force (.*)$", machine.calls(), re.M)
    images = ["jupyter:{}-cpu", "jupyter:{}-cuda"]
    images += [f"{each}:{{}}" for each in ("tensorboard", "head", "serve", "share")]
    assert removal.split() == [f"trainlab-{image.format(name)}" for image in images]
