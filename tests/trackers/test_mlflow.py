"""`tracker=mlflow`, into its own database and to a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trainlab
from trainlab.runs import listing
from trainlab.trackers import mlflow

DEADLINE = 120.0
CONFIG = {"margin": 3.0, "layers": [1, 2], "text": "title"}


def train(logs: Path, **options: Any) -> trainlab.Run:
    with trainlab.Run("exp", CONFIG, logs=logs, tracker="mlflow", monitor=False, **options) as run:
        for step in range(3):
            run.log({"train/loss": 1 / (step + 1), "val/precision@10": float("nan") if step else 0.5}, step)
    return run


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def theirs(uri: str, run: trainlab.Run) -> Any:
    known = json.loads((run.folder / "run.json").read_text())["trackers"]["mlflow"]
    return client(uri).get_run(known)


def check(uri: str, run: trainlab.Run) -> None:
    found = theirs(uri, run)
    assert (found.info.run_name, found.info.status) == (run.name, "FINISHED")
    assert client(uri).get_experiment(found.info.experiment_id).name == "exp"
    assert found.data.params == {"margin": "3.0", "layers": "[1, 2]", "text": "title"}
    history = client(uri).get_metric_history(found.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in history] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert "val/precision_at_10" in found.data.metrics


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first client of a process imports and makes a database: long on a machine with other work."""
    monkeypatch.setattr("trainlab.trackers.queue.END_SECONDS", DEADLINE)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / mlflow.FILE}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on a free port; its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/a.db"]
    command += ["--default-artifact-root", f"{folder}/artifacts", "--host", "127.0.0.1", "--port", str(port)]
    off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"], env=os.environ | off, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _healthy(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)


def test_a_run_is_written_to_a_database_in_logs_and_the_table_passes_it(tmp_path: Path, own: str) -> None:
    run = train(tmp_path)
    check(own, run)
    assert [row.run for row in listing.rows(tmp_path)] == [run.name]


@pytest.mark.slow
def test_a_real_server_takes_settings_curves_name_and_status(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run = train(tmp_path)
    check(server, run)
    assert not (tmp_path / mlflow.FILE).exists()
    again = trainlab.Run("exp", CONFIG, logs=tmp_path, resume=run.name, tracker="mlflow", monitor=False)
    with pytest.raises(KeyboardInterrupt), again:  # the same run there
        again.rewind(3)
        again.log({"train/loss": 0.25}, 3)
        raise KeyboardInterrupt
    found = theirs(server, run)
    history = client(server).get_metric_history(found.info.run_id, "train/loss")
    assert [each.step for each in history] == [0, 1, 2, 3]
    assert (found.info.status, found.data.tags["reason"]) == ("KILLED", "KeyboardInterrupt")


def test_a_server_that_is_gone_stops_nothing_and_its_password_is_seen_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:planted-password@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = train(tmp_path)
    assert json.loads((run.folder / "run.json").read_text())["status"] == "finished"
    out, err = capfd.readouterr()
    assert err.count("tracker=mlflow has stopped") == 1
    assert "planted-password" not in out + err
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and b"planted-password" in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("val/precision@10", "val/precision_at_10"), ("a b-c.d:e", "a b-c.d:e"), ("x%", "x_")],
)
def test_names_are_those_that_mlflow_takes(name: str, expected: str) -> None:
    assert mlflow.allowed(name) == expected
