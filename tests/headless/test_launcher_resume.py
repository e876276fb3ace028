"""`trainlab run --resume`: the run's own folder and settings, and nothing touched where it is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest

from lab import TRAINING, TRAINING_CELL, Lab
from trainlab.errors import UserError
from trainlab.headless import launcher, parameters
from trainlab.run import events, lock
from trainlab.run.run import Run


@pytest.fixture
def project(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A project with a training whose settings class lies beside it; for calls in this process, too."""
    monkeypatch.setenv("TRAINLAB_ROOT", str(lab.root))
    for name in ("LOGS", "NOTEBOOKS", "DATA"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("its_training", "its_own"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (lab.root / "notebooks" / "its_training.py").write_text(TRAINING)
    parameters = "margin = 1.0\nepochs = 1"
    lab.notebook("training", TRAINING_CELL, parameters=parameters, config="its_training:Settings")
    lab.notebook("plain", "1", parameters="epochs = 1")
    return lab


@pytest.fixture
def ended(project: Lab) -> Lab:
    """A run that was stopped after 10 of its steps, as its files show it; no kernel was started for it."""
    folder = project.root / "logs/training/20260101-000000-margin5"
    (folder / "checkpoints").mkdir(parents=True)
    record = {
        "experiment": "training",
        "run": folder.name,
        "status": "interrupted",
        "reason": "SIGTERM",
        "started": "2026-01-01T00:00:00Z",
        "ended": "2026-01-01T00:01:00Z",
        "seconds": 60.0,
        "config": {"margin": 5.0, "max_epochs": 1, "seed": 3, "forgotten": 1},
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "notebook.ipynb").write_text("the one before")
    (folder / "output.log").write_text("printed before\n")
    return project


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends at once."""
    popen = subprocess.Popen
    monkeypatch.setattr(launcher, "start", lambda _, held, *__: held.release() or popen(["true"]))


def test_a_run_goes_on_in_its_own_folder_with_one_value_a_step(project):
    assert project.run("training", "--name", "first").returncode == 0
    before = project.executed()
    done = project.run("training", "--resume", "last", "max_epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on at 8" in done.stdout
    assert "goes on at 0" not in done.stdout, "what the first session printed is not shown again"
    assert project.log().count("goes on at") == 2
    assert nbformat.read(project.folder() / "notebook-1.ipynb", as_version=4) == before
    record = project.record()
    assert (record["status"], record["config"]["epochs"], record["config"]["margin"]) == ("finished", 2, 1.0)
    assert record["resumes"][0]["step"] == 8
    assert "max_epochs=2" in record["resumes"][0]["command"]
    curve = events.read(project.folder()).curves["train/loss"]
    assert list(curve.steps) == list(range(20))
    assert list(curve.values)[8:10] == [1.0, 1.0], "the second session's values"


def test_the_run_s_own_settings_are_injected_whatever_the_notebook_s_are(ended, started, capsys):
    assert launcher.run("training", ["epochs=4", "resume=last"], detach=True) == 0
    cell = ended.executed().cells[1]
    injected = dict(line.split(" = ", 1) for line in cell.source.splitlines() if " = " in line)
    assert (injected["margin"], injected["epochs"], injected["seed"]) == ("5.0", "4", "3")
    assert injected["resume"] == repr(str(ended.folder()))
    assert "forgotten" not in injected
    assert "has no more: forgotten" in capsys.readouterr().out
    assert (ended.folder() / "notebook-1.ipynb").read_text() == "the one before"
    assert ended.record()["status"] == "running"
    assert ended.record()["reason"] is None


@pytest.mark.parametrize("reference", ["last", "margin5", "training/20260101-000000-margin5"])
def test_a_run_is_named_as_elsewhere(ended, started, reference):
    assert launcher.run("training", [f"resume={reference}"], resume=reference, detach=True) == 0


OWN = "import trainlab\nrun = trainlab.Run('{name}', {config}, resume=resume)\nprint('resumed', run.resumed)"
IN_THE_NOTEBOOK = """
from trainlab.training.config import TrainingConfig
class Mine(TrainingConfig):
    margin: float = 1.0
"""


def test_a_notebook_with_a_class_of_its_own_and_a_parameters_cell_goes_on_too(project):
    config = "Mine.from_notebook(globals())"
    project.notebook(
        "own",
        IN_THE_NOTEBOOK,
        OWN.format(name="lit-nb", config=config) + "\nprint(epochs, margin, size)\nrun.finish()",
        parameters="epochs = 1\nmargin = 1.0\nsize = (1, (2, 3))\nresume = ''",
    )
    assert project.run("own", "margin=2.5", "size=(4, (5, 6))").returncode == 0
    done = project.run("own", "--resume", "last", "epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.folder().parent.name == "lit-nb", "what its Run is called, not the file"
    assert "resumed True" in project.printed()
    assert "2 2.5 (4, (5, 6))\n" in project.printed()
    assert len(project.record()["resumes"]) == 1
    done = project.run("own", "--resume", "last", "margin=9")
    assert done.returncode == 2
    assert "margin: the run has 2.5, given is 9.0" in done.stderr
    done = project.run("own", "--resume", "last")
    assert done.returncode == 0, "a refused value is not kept"


def test_a_resume_that_names_no_run_of_ours_is_a_notebook_s_own_parameter(project, started):
    project.notebook("own", "1", parameters="resume = ''")
    assert launcher.run("own", ["resume=model.pt"], detach=True) == 0
    assert project.record()["config"] == {"resume": "model.pt"}


def test_a_notebook_that_does_not_hand_resume_on_is_told_how_to(ended, started, monkeypatch):
    ended.notebook(
        "own", "import trainlab\ntrainlab.Run('training', {'margin': 5.0})", parameters="resume=''"
    )
    assert launcher.run("own", resume="last", detach=True) == 0
    monkeypatch.setenv("TRAINLAB_RUN", str(ended.folder()))
    with pytest.raises(UserError, match=r"trainlab\.Run\(\.\.\., resume=resume\)"):
        Run("training", {"margin": 5.0}, logs=ended.root / "logs")
    assert len(ended.folders()) == 1


DEFAULTS = {"size": (1, 2), "kinds": {"a"}, "wave": 1j, "raw": b"", "rate": 0.1, "any": None, "resume": ""}


def test_what_json_cannot_hold_is_taken_from_the_filled_cell_and_else_made_like_the_default():
    had = {"size": [3, 4], "kinds": ["b", [1, 2]], "wave": "2j", "raw": "b'x'", "rate": "NaN", "any": [5]}
    now = parameters.resumed_by_defaults(DEFAULTS, {"any": "(6,)"}, had, "").injected
    assert repr(now.pop("rate")) == "nan"
    assert now == {"size": (3, 4), "kinds": {"b", (1, 2)}, "wave": 2j, "raw": b"x", "any": (6,)}
    cell = "any = (5,)\nsize = (9, 9)\nother = 1\nfar = float('inf')"
    now = parameters.resumed_by_defaults(DEFAULTS, {}, had | {"other": 2}, cell).injected
    assert (now["any"], now["size"]) == ((5,), (3, 4)), "run.json decides where both differ"
    assert "other" not in now


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("margin5", "is training/20260101-000000-margin5: of training, not of own"),
        ("training/20260101-000000-margin5", None),
    ],
)
def test_another_experiment_s_run_is_refused_with_its_name(ended, started, reference, told):
    (ended.root / "notebooks" / "its_own.py").write_text(TRAINING.replace("margin", "width"))
    ended.notebook("own", "1", config="its_own:Settings")
    before = contents(ended)
    with pytest.raises(UserError) as error:
        launcher.run("own", resume=reference)
    assert (told or "is of training, not of own: its settings forgotten, margin") in str(error.value)
    if told:
        assert "trainlab run training --resume 20260101-000000-margin5" in str(error.value)
    assert contents(ended) == before


def test_last_of_an_experiment_without_runs_advises_only_what_there_is(project):
    with pytest.raises(UserError, match="Start one: trainlab run training"):
        launcher.run("training", resume="last")
    with pytest.raises(UserError, match="No run of lit-nb") as error:
        Run("lit-nb", resume="last")
    assert "trainlab run" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words", "options", "told"),
    [
        ("plain", [], {"resume": "last"}, "Write resume = \"\" into its cell tagged 'parameters'"),
        ("training", ["resume=last"], {"resume": "20260101"}, "the resume is given twice"),
        ("training", ["resume=nonsense"], {}, "nonsense"),
        ("training", ["margin=2"], {"resume": "last"}, "margin: the run has 5.0, given is 2.0"),
        ("training", ["margn=2"], {"resume": "last"}, "Did you mean 'margin'?"),
        ("training", ["epochs=0"], {"resume": "last"}, "epochs=0"),
        ("training", ["epochs=13"], {"resume": "last"}, "thirteen epochs bring bad luck"),
        ("training", [], {"resume": "last", "name": "new"}, "has its name already"),
        ("training", [], {"resume": "last", "seed": 4}, "seed: the run has 3, given is 4"),
    ],
)
def test_what_cannot_go_on_is_refused_and_nothing_changes(ended, name, words, options, told):
    before = contents(ended)
    with pytest.raises(UserError) as error:
        launcher.run(name, words, **options)
    assert told in str(error.value)
    assert contents(ended) == before


@pytest.mark.parametrize("which", [lock.RUN, lock.RUNNER])
def test_a_run_at_work_is_refused(ended, which):
    held = lock.hold(ended.folder(), which)
    before = contents(ended)
    with pytest.raises(UserError, match="still running"):
        launcher.run("training", resume="last")
    assert contents(ended) == before
    held.release()


@pytest.mark.parametrize("reference", ["last", "the checkpoint"])
def test_damaged_checkpoints_are_refused(ended, reference):
    path = ended.folder() / "checkpoints/step-00000008.ckpt"
    path.write_bytes(b"damaged")
    path.with_name(f"{path.name}.sha256").write_text(f"{'0' * 64}  {path.name}\n")
    before = contents(ended)
    with pytest.raises(UserError, match="damaged"):
        launcher.run("training", resume=str(path) if reference != "last" else reference)
    assert contents(ended) == before


def contents(lab: Lab) -> dict[str, bytes]:
    """Return every file of the run but its locks, which are empty."""
    files = [path for path in lab.folder().rglob("*") if path.is_file()]
    return {path.name: content for path in files if (content := path.read_bytes())}
