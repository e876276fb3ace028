"""`trainlab check`, and every experiment that it knows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project import CHECKOUT
from trainlab import cli, experiments
from trainlab.checks.run import CheckConfig, check
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.runs.frames import scalars

NOTEBOOK = CHECKOUT / "notebooks" / "checks.ipynb"
FIVE_MINUTES = 300.0
ALL = range(1, 15)


@pytest.fixture(autouse=True)
def sound_experiment(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An experiment without a defect, and logs of the test's own."""
    folder = tmp_path_factory.mktemp("more") / "sound"
    folder.mkdir()
    for name, content in (
        ("config.py", ""),
        ("checks.py", "from tiny_classifier import subject as subject\n"),
    ):
        (folder / name).write_text(content)
    package = import_module(experiments.PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder.parent)])
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    monkeypatch.delenv("TRAINLAB_RUN", raising=False)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["trainlab", "check", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_all_passed_is_exit_code_0_and_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "sound", "--only", "1,9") == 0
    told = capsys.readouterr().out
    for shown in ("data audit", "no item in two splits", "8 of 8 texts", "passed", "seconds"):
        assert shown in told
    (folder,) = (tmp_path / "checks").iterdir()
    assert f"run: {folder}" in told
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_failure_is_exit_code_1_and_says_what_it_usually_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sound", "defect=yes", "--only", "7,12") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "failed" in told
    assert "usually: gradients do not reach" in told


def test_json_has_every_finding_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sound", "defect=yes", "--only", "10,12", "--format", "json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert [each["number"] for each in findings] == [10, 12]
    assert [each["status"] for each in findings] == ["failed", "passed"]
    assert set(findings[0]) == {"number", "name", "status", "found", "threshold", "means", "seconds"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["soud"], "Did you mean 'sound'"),
        (["sound", "--only", "15"], "15 is no check. Expected numbers from 1 to 14"),
        (["sound", "--only", "1,x"], "x is no check"),
        (["sound", "defect"], "'defect' is not a parameter"),
        (["news", "margn=3"], "Did you mean 'margin'"),
        (["news", "data=nowhere.tsv"], "nowhere.tsv"),
    ],
)
def test_a_mistake_is_exit_code_2_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    assert call(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "checks").exists()


def test_a_subject_of_ones_own_is_found_in_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "own_subject.py").write_text("from tiny_classifier import subject as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert call(monkeypatch, "own_subject:mine", "--only", "9") == 0
    assert call(monkeypatch, "own_subject:yours", "--only", "9") == 2
    assert "has no attribute 'yours'" in capsys.readouterr().err


def test_tensorboard_shows_the_table_the_curves_and_the_predictions() -> None:
    checked = check(CheckConfig(experiment="sound", only="7,10,12"))
    last = scalars(checked.run).groupby("tag")["value"].last()
    assert last["check/passed"] == 3
    assert record.read(checked.run).looks, "the table of runs is no place for it"
    assert last["check/failed"] == last["check/skipped"] == 0
    assert last["check/07-overfit-one-batch"] == 1
    assert last["overfit/batch"] < 0.1
    events = EventAccumulator(str(checked.run))
    events.Reload()
    (table,) = [each.tensor_proto.string_val[0].decode() for each in events.Tensors("checks/text_summary")]
    assert "| 7 | overfit one batch | passed | loss " in table
    predictions = events.Tensors("predictions/text_summary")
    assert [each.step for each in predictions] == list(range(len(predictions)))
    assert len(predictions) >= 4
    assert "(right: " in predictions[0].tensor_proto.string_val[0].decode()


def test_the_curves_are_drawn_panel_by_panel() -> None:
    checked = check(CheckConfig(experiment="sound", only="5,7,12"))
    assert [axes.get_title() for axes in checked.curves().axes] == ["training", "overfit"]


def test_settings_with_blanks_are_quoted() -> None:
    assert CheckConfig(settings="data='a b.tsv' margin=5").given() == {"data": "a b.tsv", "margin": "5"}
    with pytest.raises(UserError, match="No closing quotation"):
        CheckConfig(settings="data='a").given()


@pytest.mark.slow
def test_the_notebook_shows_the_same_headless(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from trainlab.cli import main; main()", "run"]
    done = subprocess.run(
        [*command, str(NOTEBOOK), "only=1,7,9"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "checks").iterdir()
    assert scalars(folder).query("tag == 'check/passed'")["value"].tolist() == [3]
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert "Warning" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("experiment", experiments.with_file("checks.py"))
def test_every_experiment_passes_all_checks(experiment: str) -> None:
    started = time.process_time()
    findings = check(CheckConfig(experiment=experiment)).findings
    assert [each.number for each in findings] == list(ALL)
    assert not [f"{each.number}: {each.found}" for each in findings if each.status == "failed"]
    skipped = [each.found for each in findings if each.status == "skipped"]
    assert all(found.startswith("not applicable") for found in skipped), skipped
    assert time.process_time() - started < FIVE_MINUTES
