"""Where runs go: into the project's folder, the checkout, or else the folder in which one starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainlab import paths
from trainlab.errors import UserError
from trainlab.run import naming


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's folder with trainlab installed from a wheel, and nothing said in the environment."""
    for name in ("ROOT", "LOGS", "DATA", "MODELS", "NOTEBOOKS"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", "/env/lib/python3.11/site-packages/trainlab/paths.py")


def test_installed_the_runs_of_a_folder_lie_in_it(tmp_path, monkeypatch):
    assert paths.logs() == tmp_path / "logs"
    monkeypatch.setattr(paths, "__file__", "/clone/src/trainlab/paths.py")
    assert str(paths.logs()) == "/clone/logs"


def test_a_project_of_one_s_own_counts_from_anywhere_in_it_and_names_its_folders(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.trainlab]\nlogs = "runs"\ndata = "/data"\n')
    inner = tmp_path / "code" / "deep"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text('[project]\nname = "trainlab-user"\n')
    monkeypatch.chdir(inner)
    assert (paths.root(), paths.logs(), paths.data()) == (tmp_path, tmp_path / "runs", Path("/data"))
    assert paths.notebooks() == tmp_path / "notebooks"
    assert paths.models() == tmp_path / "models"
    monkeypatch.setattr(paths, "__file__", "/clone/src/trainlab/paths.py")
    assert paths.root() == tmp_path
    monkeypatch.setenv("TRAINLAB_LOGS", "/elsewhere")
    assert paths.logs() == Path("/elsewhere")
    monkeypatch.setenv("TRAINLAB_ROOT", str(inner))
    assert paths.root() == inner


def test_a_table_that_is_written_later_is_seen(tmp_path):
    assert paths.logs() == tmp_path / "logs"
    (tmp_path / "pyproject.toml").write_text("[tool.trainlab]\nlogs = 'a'")
    assert paths.logs() == tmp_path / "a"
    (tmp_path / "pyproject.toml").write_text("[tool.trainlab]\nlogs = 'ab'")
    assert paths.logs() == tmp_path / "ab"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.trainlab]\nlogs = 5\n", "logs = 5 .* expected a folder"),
        ('[tool.trainlab]\nnotebooks = ""\n', "notebooks = '' .* expected a folder"),
        ('[tool.trainlab]\nlogs = "a\\u0000b"\n', "expected a folder"),
        ("[tool]\ntrainlab = 'x'\n", "expected a table"),
        ("[tool.trainlab]\nlog = 'runs'\n", "no key 'log'. Did you mean 'logs'?"),
        ("[tool.trainlab]\nlogs = \n", "can't be read as TOML"),
    ],
)
def test_a_broken_table_is_told_in_one_sentence(tmp_path, text, told):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UserError, match=told):
        paths.logs()


def test_a_folder_is_named_from_one_s_home_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "pyproject.toml").write_text("[tool.trainlab]\nlogs = '~/runs'")
    assert paths.logs() == Path("/home/me/runs")
    (tmp_path / "pyproject.toml").write_text("[tool.trainlab]\nlogs = '~nobody-has-this-name/r'")
    assert paths.logs() == tmp_path / "~nobody-has-this-name/r"


def test_what_somebody_else_has_put_into_a_folder_for_everybody_is_not_obeyed(tmp_path, monkeypatch):
    common, mine = tmp_path / "common", tmp_path / "common" / "mine"
    mine.mkdir(parents=True)
    file = common / "pyproject.toml"
    file.write_text("[tool.trainlab]\nlogs = '/theirs'")
    monkeypatch.chdir(mine)
    if os.getuid() == 0:
        os.chown(file, 4321, 4321)
    else:
        monkeypatch.setattr(paths.os, "getuid", lambda: 4321)
    assert paths.logs() == Path("/theirs"), "a colleague's project, in a folder of the colleague's"
    common.chmod(0o1777)
    assert paths.logs() == mine / "logs"


def test_a_pipe_and_a_huge_file_are_no_settings(tmp_path):
    os.mkfifo(tmp_path / "pyproject.toml")
    assert paths.logs() == tmp_path / "logs"
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "pyproject.toml").write_text("[tool.trainlab]\nlogs = 'runs'\n#" + " " * (2 << 20))
    assert paths.logs() == tmp_path / "logs"


def test_a_broken_file_that_says_nothing_of_trainlab_is_somebody_else_s(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project\nname = 'trainlab-user'")
    assert paths.logs() == tmp_path / "logs"


@pytest.mark.parametrize("place", ["site-packages", "environment"])
def test_no_run_lands_among_python_s_own_files(tmp_path, monkeypatch, place):
    folder = tmp_path / "sub"
    folder.mkdir()
    if place == "environment":
        monkeypatch.setattr(paths.sys, "prefix", str(tmp_path))
    else:
        monkeypatch.setattr(paths.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"inside Python's own folder .* TRAINLAB_LOGS="):
        naming.new_folder(paths.logs(), "mine")
    assert list(folder.iterdir()) == []


def test_the_first_run_makes_the_folder_and_says_so_once(tmp_path, capsys):
    naming.new_folder(paths.logs(), "mine")
    assert f"made {tmp_path / 'logs'} for runs" in capsys.readouterr().err
    naming.new_folder(paths.logs(), "mine")
    assert capsys.readouterr().err == ""
