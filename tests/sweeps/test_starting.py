"""Runs of trials are made ready, written down, and then begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sweeping import SCRIPT, VALUE, kill_run, steps
from trainlab.errors import UserError
from trainlab.run import lock, record
from trainlab.sweeps.starting import Order, Start, StartError, prepared
from waiting import until

SWEEP = {"name": "tiny", "trial": 7, "attempts": 1}
CELL = """
import time
import trainlab
from pathlib import Path
from trainlab.run import checkpoint
with trainlab.Run("book", {"x": x}, monitor=False, resume=resume) as run:
    first = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    if run.checkpoint:
        run.rewind(first, run.checkpoint)
    for step in range(first, 4):
        run.log({"val/loss": x + 1 / (step + 1)}, step)
        checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
        while step == 1 and not Path("go").exists():
            time.sleep(0.02)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))
    path = tmp_path / "train.py"
    path.write_text(VALUE + SCRIPT)
    return path


def order(script, **fields) -> Order:
    known = {
        "program": str(script),
        "module": False,
        "words": ("x=2.0",),
        "arguments": (),
        "name": "tiny-007",
    }
    return Order(**known | {"sweep": SWEEP} | fields)


def test_a_script_s_run_is_ready_at_once_and_begins_when_it_is_told(script):
    start = Start(order(script), {"OMP_NUM_THREADS": "1"})
    assert start.ready()
    known = record.read(start.folder)
    assert (known.status, known.sweep.trial, known.config) == ("running", 7, {"x": 2.0})
    assert lock.alive(start.folder)
    assert start.go().wait(120) == 0
    assert steps(start.folder) == [0, 10, 20, 30]
    assert start.folder.name.endswith("-tiny-007")


def test_a_run_that_is_let_be_has_ended_before_it_began(script):
    start = Start(order(script), {})
    start.drop()
    known = record.read(start.folder)
    assert (known.status, known.reason) == ("interrupted", "its sweep has ended")
    assert not lock.alive(start.folder)


def test_a_run_that_cannot_be_says_why(script):
    script.write_text("print(1)")
    with pytest.raises(UserError, match="does not look at its arguments"):
        Start(order(script), {})


def test_where_there_is_no_checkpoint_a_run_begins_again_elsewhere(script):
    first = prepared(order(script))
    first.drop("")
    again = Start(order(script, resume=str(first.folder)), {})
    until(again.ready, "a process of its own has made it ready")
    assert again.folder != first.folder
    assert again.remark.startswith(f"begun again in a new folder: {first.folder.name} has no whole")
    again.drop()
    assert record.read(again.folder).status == "interrupted"


def test_a_run_that_somebody_else_goes_on_with_is_not_begun_a_second_time(script):
    first = prepared(order(script))
    again = Start(order(script, resume=str(first.folder)), {})
    with pytest.raises(StartError, match="somebody else goes on"):
        until(again.ready, "a process of its own has looked")
    first.drop("")
    assert len([*script.parent.glob("logs/*/*/run.json")]) == 1


def test_a_start_that_is_killed_is_no_fault_of_the_trial(script, monkeypatch):
    first = prepared(order(script))
    first.drop("")
    again = Start(order(script, resume=str(first.folder)), {})
    again._apart.kill()
    with pytest.raises(StartError, match="exit code -9"):
        until(again.ready, "it has died")


def test_a_run_whose_sweep_dies_before_it_begins_does_not_begin(script):
    done = subprocess.run(
        [sys.executable, "-m", "trainlab.sweeps.starting", json.dumps(asdict(order(script)))],
        env=os.environ | {"TRAINLAB_ROOT": str(script.parent)},
        input=b"",
        capture_output=True,
        check=True,
    )
    folder = script.parent / json.loads(done.stdout)["folder"]
    assert record.read(folder).status == "interrupted"
    assert not lock.alive(folder)
    assert steps(folder) == []


def test_a_notebook_s_trials_are_runs_too_and_go_on_where_they_were_killed(sweep, monkeypatch):
    tried = sweep(2)
    book = tried.root / "book.ipynb"
    parameters = new_code_cell("x = 0.5\nresume = ''", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[parameters, new_code_cell(CELL)]), book)
    changed = tried.definition.model_copy(update={"program": str(book)})
    path = tried.logs / ".sweeps" / "tiny" / "sweep.json"
    path.write_text(changed.model_dump_json())
    process = tried.lead()
    folders = tried.held(2, 2)
    kill_run(folders[0])
    (tried.root / "go").touch()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    trials = tried.trials()
    assert [(each.state, each.value) for each in trials] == [("finished", 1.25), ("finished", 2.25)]
    assert sorted(each.attempts for each in trials) == [1, 2]
    assert len(tried.folders()) == 2
    for folder in folders:
        assert steps(folder) == [0, 1, 2, 3]
        assert (folder / "notebook.ipynb").exists()
        assert record.read(folder).sweep.name == "tiny"
