"""What `make` says of a build that takes minutes, and where the rest of its words are."""

from __future__ import annotations

import re

from fake_machine import Machine, environment_of
from project import clean_environment
from terminal import in_terminal

SAID = """#7 [jupyter 3/9] RUN pip install
#7 0.7 Collecting numpy
#9 1.2 warning: upper 1.0 asks for lower>=1, and 0.9 is installed
#9 DONE 1.3s
"""
REFUSED = """#7 0.7 Collecting numpy
#8 2.0 ERROR: Cannot install olden because these package versions have conflicting dependencies.
#8 2.1 torch 2.13.0+cpu stays: all that is built against it would break.
#8 ERROR: process "/bin/bash" did not complete successfully: exit code: 1
------
failed to solve
"""


def test_a_build_is_one_line_and_its_warnings_and_the_rest_is_in_a_file(machine: Machine) -> None:
    (machine.tools / "build").write_text(SAID)
    said = machine.make("up").stdout
    assert "building the images (the first time some minutes; 2 GB on the disk)" in said
    assert "\nwarning: upper 1.0 asks for lower>=1, and 0.9 is installed\n" in said
    assert "Collecting" not in said
    assert (machine.folder / ".stack/build.log").read_text() == SAID
    addresses = re.findall(r"http://127\.0\.0\.1\S+", said)
    assert len(addresses) == len(set(addresses)) > 1, "each once"


def test_a_build_that_fails_shows_the_words_of_the_step_that_failed_and_names_the_file(
    machine: Machine,
) -> None:
    (machine.tools / "build").write_text(REFUSED)
    (machine.tools / "broken").touch()
    done = machine.make("up", check=False)
    assert done.returncode == 2
    assert "torch 2.13.0+cpu stays: all that is built against it would break.\n" in done.stdout
    assert "Collecting" not in done.stdout and "failed to solve" not in done.stdout
    assert ".stack/build.log" in done.stdout
    assert "compose up" not in machine.calls()
    (machine.tools / "broken").unlink()
    machine.make("up")
    assert machine.built() == 2, "a build that failed counts as none"


def test_all_that_a_build_says_is_shown_where_that_is_asked_for(machine: Machine) -> None:
    (machine.tools / "build").write_text(SAID)
    assert "#7 0.7 Collecting numpy" in machine.make("build", "V=1").stdout
    (machine.tools / "broken").touch()
    assert machine.make("build", "V=1", check=False).returncode == 2


def test_in_a_terminal_the_seconds_are_counted(machine: Machine) -> None:
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "build"], machine.folder, environment) as terminal:
        assert re.search(r"on the disk\): \d+ s\r\n", terminal.until(""))


def test_the_demo_prints_the_addresses_once_at_its_end(machine: Machine) -> None:
    said = machine.make("demo").stdout
    assert said.count("/lab?token=") == 1
    assert said.index("/lab?token=") > said.index("building the images")


def test_without_docker_a_package_of_the_list_is_installed_once_and_one_that_went_is_named(
    machine: Machine,
) -> None:
    calls = machine.tools / "pip"
    environment_of(machine.folder, calls)
    path = machine.folder / "requirements.txt"
    path.write_text("einops>=0.8\ntabulate\n")

    def installed() -> int:
        return calls.read_text().count("-r .stack/packages")

    machine.make("build", ENGINE="local", GPU="0")
    path.write_text("# another comment\neinops>=0.8\ntabulate\n")
    machine.make("build", ENGINE="local", GPU="0")
    assert installed() == 1
    path.write_text("einops>=0.8\n")
    said = machine.make("build", ENGINE="local", GPU="0").stdout
    assert installed() == 2
    assert "taken off the list, and still in .venv: tabulate" in said
    path.unlink()
    said = machine.make("build", ENGINE="local", GPU="0").stdout
    assert "still in .venv: einops" in said
    assert "taken off" not in machine.make("build", ENGINE="local", GPU="0").stdout
    assert installed() == 2


def test_a_changed_list_is_built_into_the_image_anew(machine: Machine) -> None:
    machine.make("up")
    (machine.folder / "requirements.txt").write_text("einops\n")
    machine.make("up")
    machine.make("up")
    assert machine.built() == 2


def test_an_unknown_extra_of_torch_is_refused_before_anything_is_built(machine: Machine) -> None:
    for engine in ("docker", "local"):
        done = machine.make("up", check=False, ENGINE=engine, TORCH_EXTRAS="torchtext")
        assert done.returncode == 2
        assert "'torchtext' is none of torchvision torchaudio" in done.stdout
    assert not machine.built()
