"""`trainlab new`: what it writes, what it refuses, and that nothing of the user's is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT
from trainlab.errors import UserError
from trainlab.lab import create, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = "src"  # of a lab


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's project, with a package, settings and tests of its own."""
    folder = tmp_path / "mine"
    for name, text in {
        f"{SRC}/mine/__init__.py": "answer = 42\n",
        "pyproject.toml": '[project]\nname = "mine"\nversion = "1"\n',
        "README.md": "Mine.\n",
        ".gitignore": "*.tmp\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    yield folder


def test_a_lab_holds_the_files_of_this_project_byte_for_byte(tmp_path: Path) -> None:
    made = create.new(tmp_path / "my-lab")
    files = stack.files(CHECKOUT)
    assert {
        "Makefile",
        "docker-compose.yml",
        "jupyter/Dockerfile",
        "stack/verb",
        "logs/.gitignore",
        "models/.gitignore",
        "serve/Dockerfile",
    } <= files.keys()
    for name, path in files.items():
        copy = made.folder / name
        assert copy.read_bytes() == path.read_bytes(), name
        assert os.access(copy, os.X_OK) or not os.access(path, os.X_OK), name


def test_every_file_of_the_stack_that_git_tracks_goes_into_a_lab() -> None:
    tracked = subprocess.check_output(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "head",
            "jupyter",
            "tensorboard",
            "local",
            "serve",
            "stack",
        ],
        cwd=CHECKOUT,
        text=True,
    )
    assert set(tracked.splitlines()) <= stack.files(CHECKOUT).keys()


def test_a_lab_is_called_by_its_folder_and_its_package_fits_python(tmp_path: Path) -> None:
    made = create.new(tmp_path / "deep" / "Cat-Finder")
    assert made.package == "cat_finder"
    assert (made.folder / f"{SRC}/cat_finder/train.py").is_file()
    assert 'name = "Cat-Finder"' in (made.folder / "pyproject.toml").read_text()
    texts = b"".join(body for name, body in snapshot(made.folder).items() if not name.endswith(".whl"))
    assert b"my_lab" not in texts and b"my-lab" not in texts


@pytest.mark.parametrize(
    "name", ["torch.nn", "3d", "a b", "json", "trainlab", "-x", "häuser", "class", "n" * 101]
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Choose letters"):
        create.new(tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "NumPy", "sklearn", "huggingface-hub", "torchvision"])
def test_the_name_of_a_package_of_the_stack_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="one would hide the other"):
        create.new(tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_a_file_a_link_and_a_path_that_is_too_long_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match="is no folder"):
            create.new(tmp_path / name)
    with pytest.raises(UserError, match="name too long"):
        create.new(tmp_path / ("n" * 300) / "lab")
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        create.new(tmp_path / "lab")
    assert snapshot(tmp_path) == {"lab/mine.txt": b"mine"}


def test_an_example_brings_its_notebooks_its_data_and_what_it_imports(tmp_path: Path) -> None:
    files = snapshot(create.new(tmp_path / "lab", ["news"]).folder)
    assert {"src/experiments/news/train.py", "notebooks/news.ipynb", "data/sample/news.tsv"} <= files.keys()
    assert not any(name.startswith(("src/experiments/captions", "notebooks/captions")) for name in files)
    needed = stack.examples(CHECKOUT)["attention"]
    assert "src/experiments/sentiment/train.py" in needed, "attention imports it"
    with pytest.raises(UserError, match="Did you mean 'news'"):
        create.new(tmp_path / "other", ["new"])
    assert not (tmp_path / "other").exists()


def test_here_adds_the_stack_and_keeps_every_byte_that_is_there(repository: Path) -> None:
    before = snapshot(repository)
    made = create.add_here(repository)
    after = snapshot(repository)
    assert before.items() <= after.items()
    assert made.kept == [".gitignore", "README.md", "pyproject.toml"]
    assert made.package == create.SPARE, "src/mine is the user's"
    assert stack.files(CHECKOUT).keys() - {".gitignore"} <= after.keys()
    assert "/.env" in made.add[".gitignore"].splitlines(), "a token lies in it"
    assert 'demo = "first"' in made.add["pyproject.toml"]


@pytest.mark.parametrize("ignoring", [True, False])
def test_here_lets_git_ignore_nothing_of_a_folder_that_has_the_project_s_own_files(
    repository: Path, ignoring: bool
) -> None:
    if not ignoring:
        (repository / ".gitignore").unlink()
    (repository / "models").mkdir()
    (repository / "models/net.py").write_text("layers = 3\n")
    made = create.add_here(repository)
    assert "models/" in made.kept
    assert "/logs/*" in made.add.get(".gitignore", (repository / ".gitignore").read_text())
    if ignoring:
        (repository / ".gitignore").write_text(made.add[".gitignore"])
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    (repository / "models/new.py").write_text("layers = 4\n")
    ignored = [
        "git",
        "check-ignore",
        "models/net.py",
        "models/new.py",
        "data/mine.csv",
        "logs/news/a/run.json",
    ]
    found = subprocess.run(ignored, cwd=repository, capture_output=True, text=True, check=False).stdout
    assert found.split() == ["data/mine.csv", "logs/news/a/run.json"]


def test_here_names_the_lines_that_a_gitattributes_of_one_s_own_lacks(repository: Path) -> None:
    (repository / ".gitattributes").write_text("*.csv binary\n/stack/** text=auto eol=lf\n")
    made = create.add_here(repository)
    assert (repository / ".gitattributes").read_text().startswith("*.csv binary")
    added = made.add[".gitattributes"].splitlines()
    assert "/jupyter/** text=auto eol=lf" in added
    assert "/stack/** text=auto eol=lf" not in added


def test_here_names_what_stands_in_the_way_and_changes_nothing(repository: Path) -> None:
    (repository / "Makefile").write_text("all:\n")
    (repository / "stack").write_text("a file where a folder belongs")
    before = snapshot(repository)
    with pytest.raises(UserError, match=r"in the way in .*: Makefile, stack\. Nothing was changed"):
        create.add_here(repository)
    assert snapshot(repository) == before


def test_in_a_lab_here_adds_what_is_missing_and_examples_and_no_second_experiment(repository: Path) -> None:
    (repository / SRC / "mine/__init__.py").unlink()
    (repository / SRC / "mine").rmdir()
    create.add_here(repository)
    (repository / "Makefile").write_text("# changed by the user\n")
    (repository / SRC / "mine/model.py").unlink()
    (repository / "stack/verb").unlink()
    before = snapshot(repository)
    made = create.add_here(repository, ["news"])
    after = snapshot(repository)
    assert before.items() <= after.items()
    assert "stack/verb" in after and f"{SRC}/experiments/news/train.py" in after
    assert f"{SRC}/mine/model.py" not in after and not made.package
    assert not (repository / SRC / create.SPARE).exists()


def test_trainlab_s_own_repository_becomes_no_lab(repository: Path) -> None:
    (repository / SRC / "trainlab/lab").mkdir(parents=True)
    (repository / SRC / "trainlab/lab/stack.txt").touch()
    before = snapshot(repository)
    with pytest.raises(UserError, match="own repository"):
        create.add_here(repository)
    assert snapshot(repository) == before


def test_a_lab_of_another_version_is_told_to_update_first(repository: Path) -> None:
    create.add_here(repository)
    (wheel,) = repository.glob("jupyter/wheels/trainlab-*.whl")
    wheel.rename(wheel.with_name("trainlab-0.1.0-py3-none-any.whl"))
    before = snapshot(repository)
    with pytest.raises(UserError, match=r"is a lab already.* trainlab update"):
        create.add_here(repository)
    assert snapshot(repository) == before


@pytest.mark.parametrize("name", ["my.project", "Müller and sons", "torch"])
def test_here_works_in_a_folder_whose_name_no_package_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    made = create.add_here(tmp_path / name)
    assert made.package == create.SPARE
    assert 'name = "first-experiment"' in (tmp_path / name / "pyproject.toml").read_text()


def test_here_writes_nothing_through_a_link(repository: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name in ("data", "notebooks", "logs", "stack"):
        (disk / name).mkdir(parents=True)
        (repository / name).symlink_to(disk / name)
    (repository / "tensorboard").symlink_to(tmp_path / "nowhere")
    before = snapshot(repository)
    with pytest.raises(UserError, match=r"in the way in .*: stack, tensorboard\. Nothing was changed"):
        create.add_here(repository)
    assert snapshot(repository) == before
    (repository / "tensorboard").unlink()
    (repository / "stack").unlink()
    made = create.add_here(repository)
    assert snapshot(disk) == {} and not (tmp_path / "nowhere").exists()
    assert {"data/.gitignore", "logs/.gitignore", "notebooks/first.ipynb"} <= set(made.kept)


def test_here_takes_folders_and_broken_links_in_place_of_a_lab_s_files_as_the_user_s(
    repository: Path,
) -> None:
    (repository / "pyproject.toml").unlink()
    (repository / "pyproject.toml").symlink_to("nowhere")
    (repository / "README.md").unlink()
    (repository / "README.md").mkdir()
    made = create.add_here(repository)
    assert {"pyproject.toml", "README.md"} <= set(made.kept)
    assert "[tool.trainlab]" in made.add["pyproject.toml"]


def test_an_env_file_of_another_tool_is_told_the_user_and_a_token(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    (repository / ".env").write_text("DATABASE=mine\nTRAINLAB_GID = 5\n")
    add = create.add_here(repository).add[".env"]
    assert "TRAINLAB_UID=1234" in add and "TRAINLAB_GID" not in add
    assert len(add.partition("JUPYTER_TOKEN=")[2].partition("\n")[0]) == 48
    assert (repository / ".env").read_text() == "DATABASE=mine\nTRAINLAB_GID = 5\n"


def test_when_the_disk_is_full_half_way_all_that_was_added_goes_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = create._write
    count = 0

    def full(path: Path, body: bytes) -> None:
        nonlocal count
        count += 1
        if count == 40:
            raise OSError(28, "No space left on device")
        writing(path, body)

    monkeypatch.setattr(create, "_write", full)
    before = sorted(repository.rglob("*"))
    with pytest.raises(UserError, match=r"No space left .* Nothing was added"):
        create.add_here(repository)
    assert sorted(repository.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="can't be written"):
        create.new(tmp_path / "lab")


def test_the_command_says_what_comes_next_and_a_mistake_is_a_sentence(tmp_path: Path) -> None:
    def trainlab(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from trainlab.cli import main; main()", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert trainlab("new", "my-lab").stdout.splitlines()[-1] == "next: cd my-lab && make demo"
    for words, said in (
        (("new", "my-lab"), "is not empty"),
        (("new",), "--here"),
        (("update",), "is no lab"),
    ):
        done = trainlab(*words)
        assert done.returncode == 2
        assert said in done.stderr and "Traceback" not in done.stderr
