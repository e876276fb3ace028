"""What `make clean` deletes, and what it asks about."""

from __future__ import annotations

import shutil
from pathlib import Path

from fake_machine import Machine
from project import clean_environment
from terminal import in_terminal


def users_files(machine: Machine) -> list[Path]:
    run = machine.folder / "logs/news/20260101-000000/run.json"
    data = machine.folder / "data/mind-small/news.tsv"
    model = machine.folder / "models/20260101-000000-0123456789ab/card.json"
    for path in (run, data, model):
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    machine.make("up")
    return [run, data, model, machine.folder / ".env"]


def test_clean_deletes_nothing_where_nobody_can_be_asked(machine: Machine) -> None:
    files = users_files(machine)
    machine.make("clean")
    assert all(path.exists() for path in files)
    assert (machine.folder / ".stack").exists()
    assert "image rm" not in machine.calls()


def test_clean_keeps_what_is_the_users_when_told_no(machine: Machine) -> None:
    files = users_files(machine)
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "clean"], machine.folder, environment) as terminal:
        terminal.type("y\nn\n")
        said = terminal.until("")
    assert "logs/news" in said and "models/20260101" in said
    assert all(path.exists() for path in files)
    assert not (machine.folder / ".stack").exists()


def test_clean_deletes_all_but_what_git_brought_when_told_yes(machine: Machine) -> None:
    files = users_files(machine)
    machine.make("clean", YES="1")
    assert not any(path.exists() for path in files)
    assert (machine.folder / "data/sample/news.tsv").exists()
    assert (machine.folder / "logs/.gitignore").exists()
    assert (machine.folder / "models/.gitignore").exists()
    assert "image rm" in machine.calls()


def test_clean_deletes_a_run_whose_name_has_a_line_break_and_nothing_else(machine: Machine) -> None:
    files = users_files(machine)
    shutil.rmtree(machine.folder / "data/mind-small")
    (machine.folder / ".git").mkdir()
    for name in ("odd\n.git\nsrc\nREADME.md", "-rf", " a  b ", "tab\tand\x1b[31m"):
        (machine.folder / "logs" / name).mkdir()
    said = machine.make("clean", YES="1").stdout
    assert "logs/odd?.git?src?README.md\n" in said
    assert "\x1b" not in said
    assert [path.name for path in (machine.folder / "logs").iterdir()] == [".gitignore"]
    for name in (".git", "src/trainlab/errors.py", "README.md"):
        assert (machine.folder / name).exists(), name
    assert not files[-1].exists()


def test_a_folder_whose_path_has_a_line_break_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.folder = machine.folder.rename(tmp_path / "two\nlines")
    assert "has a line break in it" in machine.make("down", check=False, ENGINE="local").stdout
