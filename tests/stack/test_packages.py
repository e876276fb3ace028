"""Packages of a project's own, and torch, which stays where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, clean_environment, copy_checkout, own_images
from wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TORCH = metadata.version("torch")  # with the build behind a plus
PLAIN = TORCH.partition("+")[0]


def names(folder: Path, requirements: str | None = None, pyproject: str = "") -> subprocess.CompletedProcess:
    """Gather the packages that a project names."""
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    (folder / "pyproject.toml").write_text(pyproject)
    command = [sys.executable, CHECKOUT / "jupyter/packages/list", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_project_names_packages_in_either_of_two_files_or_in_both(tmp_path):
    lab = '[project]\nname = "my-lab"\ndependencies = ["einops>=0.8", "trainlab"]\n'
    assert names(tmp_path, None, lab).stdout == "einops>=0.8\ntrainlab\n"
    assert names(tmp_path, "\ufeff# mine\n\ntabulate\n", lab).stdout == "tabulate\neinops>=0.8\ntrainlab\n"
    assert names(tmp_path, "tabulate\n# why\ntqdm==4.*  # bars\n").stdout == "tabulate\ntqdm==4.*  # bars\n"


def test_trainlabs_own_dependencies_are_in_the_lock_file_and_not_installed_twice():
    command = [CHECKOUT / "jupyter/packages/list", CHECKOUT]
    assert subprocess.check_output(command, text=True) == ""


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt",
        "-e .",
        "./own.whl",
        "own @ file:///own.whl",
        "-c held.txt",
        "-rmore.txt",
        "own.whl",
        "~/own.whl",
        "git+file:///own",
        "-f wheels",
        "--find-links=wheels",
    ],
)
def test_a_line_that_names_a_file_is_refused_with_its_number(tmp_path, line):
    done = names(tmp_path, f"einops\n{line}\n")
    assert done.returncode != 0
    assert f"requirements.txt, line 2: {line!r} names a file" in done.stderr
    assert "jupyter/wheels/" in done.stderr


def test_a_page_of_wheels_is_no_file(tmp_path):
    lines = "--find-links https://example.org/torch.html\nown @ https://example.org/own.whl\n"
    assert names(tmp_path, lines).stdout == lines


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("project = 5\n", "expected a table"),
        ('[project]\ndependencies = ["-r /etc/passwd"]\n', "names a file"),
        ('[project]\ndependencies = ["./own"]\n', "names a file"),
        ('[project]\ndependencies = ["--index-url https://example.org"]\n', "is no package"),
        ('[project]\ndependencies = ["einops\\n--pre"]\n', "is no package"),
        ('[project]\ndependencies = [""]\n', "is no package"),
    ],
)
def test_dependencies_are_packages_and_nothing_else_that_pip_would_obey(tmp_path, text, told):
    done = names(tmp_path, None, text)
    assert done.returncode != 0 and done.stdout == ""
    assert told in done.stderr and "Traceback" not in done.stderr


def test_a_line_that_is_not_ended_does_not_swallow_the_next_file_s_first(tmp_path):
    done = names(tmp_path, "tabulate \\\n", '[project]\ndependencies = ["einops"]\n')
    assert done.returncode != 0 and "ends in the middle of a line" in done.stderr


class Environment:
    """A virtual environment that sees our packages, with an index of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder / "a b", folder / "index"
        self.index.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        (packages,) = self.folder.glob("lib/python*/site-packages")
        (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.python("packages/hold")

    def call(self, *command: object) -> subprocess.CompletedProcess[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        sources = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.index.as_uri()}
        return subprocess.run(
            command,
            env=plain | sources,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def python(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Call one of our scripts with the environment's Python."""
        return self.call(self.folder / "bin/python", CHECKOUT / "jupyter" / script, *arguments)

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call(self.folder / "bin/pip", "install", *arguments)

    def version(self, name: str) -> str:
        return self.call(
            self.folder / "bin/python", "-c", f"import {name}; print({name}.version)"
        ).stdout.strip()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_a_package_that_wants_another_torch_is_refused_with_what_to_do(environment):
    wheel(environment.index, "olden", "1.0", "torch<2.0")
    wheel(environment.index, "torch", "1.13.0")
    done = environment.pip("olden")
    assert done.returncode == 1
    assert f"torch {TORCH} stays: all that is built against it would break." in done.stdout
    assert "olden 1.0 asks for torch<2.0" in done.stdout
    assert "`pip index versions olden`" in done.stdout
    assert "ERROR: Cannot install olden" in done.stdout, "pip's own words come first"
    module = environment.call(environment.folder / "bin/python", "-m", "pip", "install", "olden")
    assert module.returncode == 1, "held whatever calls pip"
    assert f"(constraint) torch==={TORCH}" in module.stdout


def test_torch_itself_stays_whatever_is_asked(environment):
    wheel(environment.index, "torch", "99.0")
    done = environment.pip("torch==99.0")
    assert done.returncode == 1 and "you asked for torch==99.0" in done.stdout
    done = environment.pip("--upgrade", "torch")
    assert done.returncode == 0 and f"torch {TORCH} stays" in done.stdout
    assert "Would install" not in done.stdout


def test_a_package_that_takes_this_torch_is_installed_without_a_word_more(environment):
    wheel(environment.index, "fitting", "1.0", "torch>=2")
    done = environment.pip("fitting")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("Successfully installed fitting-1.0")


def test_a_constraint_of_the_users_own_holds_beside_ours(environment, monkeypatch, tmp_path):
    wheel(environment.index, "fitting", "1.0")
    wheel(environment.index, "fitting", "2.0")
    wheel(environment.index, "torch", "99.0")
    (tmp_path / "own.txt").write_text("fitting<2\n")
    call = environment.call

    def held(*command: object) -> subprocess.CompletedProcess[str]:
        return call("env", f"PIP_CONSTRAINT={tmp_path / 'own.txt'}", *command)

    monkeypatch.setattr(environment, "call", held)
    assert "fitting-1.0" in environment.pip("fitting").stdout
    assert environment.pip("torch==99.0").returncode == 1


def test_torchvision_comes_in_the_version_and_build_of_the_torch_at_hand(environment):
    build = TORCH[len(PLAIN) :]
    wheel(environment.index, "torchvision", f"0.1{build}", f"torch=={PLAIN}")
    wheel(environment.index, "torchvision", f"0.2{build}", "torch==99.0")
    done = environment.python("torch/extras", "torchvision", "", environment.index)
    assert done.returncode == 0, done.stdout
    assert environment.version("torchvision") == f"0.1{build}"
    environment.python("packages/hold")
    wheel(environment.index, "torchvision", f"0.3{build}", f"torch=={PLAIN}")
    assert "you asked for torchvision==0.3" in environment.pip("torchvision==0.3").stdout, (
        "it is held as well"
    )


@pytest.mark.skipif("+" not in TORCH, reason="the usual build of torchvision fits the usual build of torch")
def test_a_torchvision_of_another_build_is_refused_and_the_way_to_the_right_one_named(environment):
    wheel(environment.index, "torchvision", "0.1", f"torch=={PLAIN}")
    wheel(environment.index, "timber", "1.0", "torchvision")
    done = environment.python("torch/extras", "torchvision", "", "/nowhere")
    assert done.returncode == 1
    assert f"no torchvision built against torch {TORCH} was found. Nothing was changed." in done.stdout
    assert "seen: torchvision 0.1, of another build" in done.stdout
    assert environment.version("torchvision") != "0.1"
    done = environment.pip("timber")
    assert done.returncode == 1
    assert "TORCH_EXTRAS=torchvision in .env, then `make up`" in done.stdout


def test_an_unknown_extra_of_torch_is_refused_with_those_that_there_are(environment):
    done = environment.python("torch/extras", "torchvision,torchtext", "", "/nowhere")
    assert "'torchtext' is none of torchvision torchaudio" in done.stdout


def test_what_breaks_a_requirement_is_said_in_one_line(environment):
    wheel(environment.index, "lower", "1.0")
    wheel(environment.index, "upper", "1.0", "lower>=1")
    wheel(environment.index, "lower", "0.9")
    assert environment.pip("upper").returncode == 0
    environment.pip("lower==0.9")
    said = environment.python("packages/check").stdout
    assert "warning: upper 1.0 asks for lower>=1, and 0.9 is installed\n" in said


INSTALL = """
%pip install --no-index --find-links . tiny
!pip install --no-index --find-links . little
"""
IMPORT = "import tiny, little, named, sys\nprint(tiny.version, little.version, named.version)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A clone that names a package of its own, a wheel in jupyter/wheels/, and its image."""
    own_images()  # whose layers it starts from
    folder = copy_checkout(tmp_path_factory.mktemp(f"packages{os.getpid()}-"))
    for path in (CHECKOUT / "jupyter/wheels").glob("torch-*.whl"):
        os.link(path, folder / "jupyter/wheels" / path.name)
    wheel(folder / "jupyter/wheels", "named", "3.0")
    (folder / "requirements.txt").write_text("named>=2\n")
    for name in ("tiny", "little"):
        wheel(folder / "notebooks", name, "1.0")
    cells = [
        {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for source in (INSTALL, IMPORT)
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    (folder / "notebooks/installs.ipynb").write_text(json.dumps(notebook))
    # a file's mode decides if a layer is known
    written = [folder / name for name in ("logs", "data", "models", "notebooks")]
    subprocess.run(["chmod", "-R", "a+rwX", *written], check=True)
    yield folder, compose(folder, "build", "jupyter")
    compose(folder, "down", "--volumes", "--rmi=all", "--timeout", "3")


def compose(folder: Path, *arguments: str) -> str:
    """Call Docker Compose in a folder; return all that it said."""
    done = subprocess.run(
        ["docker", "compose", "--progress=plain", *arguments],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.docker
@pytest.mark.slow
def test_a_named_package_is_in_the_image_and_what_a_notebook_installs_is_found_by_its_kernel_and_recorded(
    built,
):
    folder, said = built
    assert "Successfully installed named-3.0" in said
    command = ("run", "--rm", "--no-deps", "--no-TTY", "jupyter", "trainlab", "run", "installs")
    assert "1.0 1.0 3.0" in compose(folder, *command)
    (record,) = folder.glob("logs/installs/*/run.json")
    assert json.loads(record.read_text())["installed"] == {"tiny": "1.0", "little": "1.0"}
    shown = compose(folder, *command[:-2], "runs", "show", "last")
    assert "installed while it ran" in shown


@pytest.mark.docker
@pytest.mark.slow
def test_only_a_change_of_the_list_installs_its_packages_anew(built):
    folder, _ = built
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n# a line that asks for nothing\n")
    assert "Successfully installed named" not in compose(folder, "build", "jupyter")
