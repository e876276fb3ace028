"""`trainlab export`: any recorded run, also a foreign one, sent whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboardX import SummaryWriter
from typer.testing import CliRunner

import trainlab
from runs_folder import foreign
from trainlab.cli import app
from trainlab.errors import UserError
from trainlab.runs import export, listing
from trainlab.trackers import Tracker
from trainlab.trackers.csv import FILE, read


def recorded(logs: Path) -> trainlab.Run:
    with trainlab.Run("exp", {"margin": 3.0}, logs=logs, monitor=False) as run:
        for step in range(3):
            run.log({"train/loss": 1.0 / (step + 1)}, step)
    return run


def call(*words: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_a_recorded_run_and_a_foreign_one_become_a_table_once_however_often(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    theirs = foreign(tmp_path / "keras" / "train")
    for _ in range(2):
        for folder in (run.folder, theirs):
            done = call(folder.name, "--to", "csv", "--logs", tmp_path)
            assert done.exit_code == 0, done.output
            assert "3 points sent to csv" in done.output
    assert [(point.step, point.value) for point in read(run.folder / FILE)] == [
        (step, pytest.approx(1.0 / (step + 1))) for step in range(3)
    ]
    assert len(read(theirs / FILE)) == 3


@pytest.mark.parametrize("wall_time", [math.nan, math.inf, 1.7e12, -1.0])
def test_points_whose_times_are_none_are_sent_with_the_runs_start(tmp_path: Path, wall_time: float) -> None:
    with SummaryWriter(str(tmp_path / "keras" / "train")) as writer:
        for step in range(3):
            writer.add_scalar("val/loss", step, step, walltime=wall_time)
    done = call("train", "--to", "csv", "--logs", tmp_path)
    assert done.exit_code == 0, done.output
    (row,) = listing.rows(tmp_path)
    assert row.started is not None
    found = [(point.value, point.time) for point in read(tmp_path / "keras" / "train" / FILE)]
    assert found == [(step, pytest.approx(row.started.timestamp())) for step in range(3)]


def test_a_recorded_run_is_sent_to_mlflow_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    run = recorded(tmp_path)
    done = call("last", "--to", "mlflow", "--logs", tmp_path)
    assert done.exit_code == 0, done.output
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/other.db")
    (experiment,) = (each for each in client.search_experiments() if each.name == "exp")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == (run.name, "FINISHED")
    assert found.data.params == {"margin": "3.0"}


def test_a_run_at_work_an_unknown_tracker_and_no_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trainlab.Run("exp", logs=tmp_path, monitor=False) as run:
        run.log({"a": 1.0}, 0)
        run.update()
        with pytest.raises(UserError, match="still running"):
            raise call(run.name, "--to", "csv", "--logs", tmp_path).exception
    with pytest.raises(UserError, match="expected csv, mlflow, wandb"):
        raise call(run.name, "--to", "tensorboard", "--logs", tmp_path).exception
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match=r"nothing would be sent\. Set WANDB_API_KEY"):
        raise call(run.name, "--to", "wandb", "--logs", tmp_path).exception
    assert not (run.folder / FILE).exists()


def test_what_a_tracker_objects_to_is_an_error_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Tracker):
        def start(self, subject: object) -> str:
            raise PermissionError("key planted-key-1234 is wrong")

    monkeypatch.setenv("WANDB_API_KEY", "planted-key-1234")
    monkeypatch.setattr(export, "make", lambda _: Refusing())
    recorded(tmp_path)
    with pytest.raises(UserError, match=r"csv has not taken .*: PermissionError: key \*\*\* is wrong"):
        raise call("last", "--to", "csv", "--logs", tmp_path).exception
