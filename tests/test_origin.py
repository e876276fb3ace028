"""The code version of a run is that of the code that ran, not trainlab's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lab import git
from trainlab import origin, system
from trainlab.run import record

MAKE = "from trainlab.run import record\nimport pathlib\nrecord.create(pathlib.Path('{folder}'), 'mine')\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's repository with a script in it that records a run, in a folder beside it."""
    mine = tmp_path / "mine"
    (mine / "code").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (mine / "code" / "train.py").write_text(MAKE.format(folder=tmp_path / "run"))
    git(mine, "init", "-q")
    git(mine, "add", ".")
    git(mine, "commit", "-qm", "first")
    return mine


def ran(repository: Path, *words: str, where: Path | None = None) -> dict:
    subprocess.run([sys.executable, *words], check=True, cwd=where or repository.parent)
    return json.loads((repository.parent / "run" / "run.json").read_text())


def test_a_script_is_of_its_own_repository_wherever_it_is_started(repository):
    known = ran(repository, str(repository / "code" / "train.py"))
    assert known["git"] == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    assert known["trainlab_git"] == system.git(origin.OURS)
    assert known["git"] != known["trainlab_git"]


def test_a_module_of_the_user_s_counts_whoever_calls_it(repository):
    call = f"import sys; sys.path.append({str(repository / 'code')!r}); import train"
    known = ran(repository, "-c", call)
    assert known["git"]["commit"] == git(repository, "rev-parse", "HEAD")


def test_a_script_outside_of_any_repository_has_no_code_version(repository):
    script = repository.parent / "train.py"
    script.write_text(MAKE.format(folder=repository.parent / "run"))
    assert ran(repository, str(script), where=repository)["git"] is None


def test_what_is_typed_is_of_the_working_folder_and_a_cell_of_its_notebook(repository, monkeypatch):
    code = MAKE.format(folder=repository.parent / "run")
    assert ran(repository, "-c", code, where=repository / "code")["git"] is not None
    cell = compile("found = of_caller()", "/tmp/ipykernel_1/2.py", "exec")
    names = {"__name__": "__main__", "of_caller": origin.of_caller}
    monkeypatch.setitem(sys.modules, "ipykernel", os)
    monkeypatch.chdir(repository.parent)
    exec(cell, names)
    assert names["found"] == repository.parent
    monkeypatch.setenv("JPY_SESSION_NAME", str(repository / "code" / "mine.ipynb"))
    exec(cell, names)
    assert names["found"] == repository / "code" / "mine.ipynb"


def test_a_record_from_before_is_read(tmp_path):
    old = {"experiment": "a", "run": "b", "status": "finished", "started": "2026-01-01T00:00:00Z"}
    code = {"commit": "c" * 40, "dirty": True}
    (tmp_path / "run.json").write_text(json.dumps(old | {"git": code, "resumes": []}))
    known = record.read(tmp_path)
    assert (known.git.model_dump(), known.trainlab_git) == (code, None)


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        (["import trainlab", "with trainlab.Run('lit-nb', {}) as run: pass"], "lit-nb"),
        (["import trainlab as t", "!ls\n%time 1\nrun = t.Run(experiment='mine')"], "mine"),
        (["from trainlab import Run as R", "def f():\n    R('inner')", "R('outer')"], "inner"),
        (["from trainlab.run.run import Run", "Run(title)"], "from a parameter"),
        (["NAME = 'a constant'", "import trainlab", "trainlab.Run(NAME)"], "a constant"),
        (["from trainlab.run.run import Run", "title = 'a default'", "Run(title)"], "from a parameter"),
        (["from trainlab.run.run import Run", "Run(unknown)", "Run('second')"], None),
        (["import wandb as trainlab", "Run('other')"], None),
        (["from azure import Run", "Run('other')", "trainlab.Run('not imported')"], None),
        (["%%bash\nRun('a')", "1 +", "import trainlab", "trainlab.Run(5)"], None),
        (["import trainlab.run", "trainlab.Run('a')"], "a"),
        (["import trainlab.run", "print(1)"], None),
    ],
)
def test_a_notebook_s_experiment_is_what_its_first_run_is_called(cells, name):
    made = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    assert origin.experiment(origin.sources(made), {"title": "from a parameter", "other": 5}) == name
