"""A tracker that works, fails, hangs or lags, seen from the run."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import trainlab
from trainlab import trackers
from trainlab.errors import UserError
from trainlab.trackers import Point, Tracker, queue
from trainlab.training.config import TrainingConfig

KEY = "planted-key-0123456789"


class Told(Tracker):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.points: list[Point] = []

    def start(self, subject: trackers.Subject) -> str:
        self.said.append(("start", subject.experiment, subject.name, subject.config, subject.known))
        return "theirs"

    def log(self, points: Any) -> None:
        self.points += points

    def rewind(self, step: int) -> None:
        self.said.append(("rewind", step))

    def finish(self, status: str, reason: str | None) -> None:
        self.said.append((status, reason))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let `tracker=csv` mean the tracker given."""

    def used(tracker: Tracker) -> Tracker:
        monkeypatch.setattr(queue, "make", lambda _: tracker)
        return tracker

    return used


def trained(logs: Path, steps: int = 3, **options: Any) -> trainlab.Run:
    with trainlab.Run("exp", {"margin": 3.0}, logs=logs, tracker="csv", monitor=False, **options) as run:
        for step in range(steps):
            run.log({"train/loss": 1 / (step + 1), "val/loss": 2.0}, step)
    return run


def record(run: trainlab.Run) -> dict[str, Any]:
    return json.loads((run.folder / "run.json").read_text())


def test_a_tracker_is_told_settings_name_points_and_the_end(tmp_path: Path, use: Any) -> None:
    told = use(Told())
    run = trained(tmp_path)
    assert told.said == [("start", "exp", run.name, {"margin": 3.0}, ""), ("finished", None)]
    assert [(point.step, point.tag, point.value) for point in told.points] == [
        (step, tag, value)
        for step in range(3)
        for tag, value in (("train/loss", 1 / (step + 1)), ("val/loss", 2.0))
    ]
    assert record(run)["trackers"] == {"csv": "theirs"}


def test_it_learns_that_a_run_failed_after_the_record_has_it(tmp_path: Path, use: Any) -> None:
    told = use(Told())
    seen = []
    told.finish = lambda status, reason: seen.append(  # type: ignore[method-assign]
        (status, reason, json.loads(next(tmp_path.glob("exp/*/run.json")).read_text())["status"])
    )
    with pytest.raises(ValueError), trainlab.Run("exp", logs=tmp_path, tracker="csv", monitor=False) as run:
        run.log({"a": 1.0}, 0)
        raise ValueError("wrong")
    ((status, reason, recorded),) = seen
    assert (status, recorded) == ("failed", "failed")
    assert "wrong" in reason


def test_a_resumed_run_goes_on_under_the_name_it_had_there(tmp_path: Path, use: Any) -> None:
    use(Told())
    first = trained(tmp_path)
    told = use(Told())
    with trainlab.Run(
        "exp", {"margin": 3.0}, logs=tmp_path, resume=first.name, tracker="csv", monitor=False
    ) as run:
        run.rewind(1)
        run.log({"train/loss": 0.5}, 1)
    assert told.said == [
        ("start", "exp", first.name, {"margin": 3.0}, "theirs"),
        ("rewind", 1),
        ("finished", None),
    ]
    assert [point.step for point in told.points] == [1]


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_that_fails_stops_nothing_and_is_reported_once_without_its_key(
    tmp_path: Path, use: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*_: Any) -> Any:
        raise ConnectionError(f"https://me:{KEY}@host refused {KEY}\nsecond line")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    told = use(Told())
    setattr(told, method, fail)
    run = trained(tmp_path, steps=50)
    assert record(run)["status"] == "finished"
    assert record(run)["last"]["train/loss"]["step"] == 49
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(
        "tracker=csv has stopped: ConnectionError: https://***@host refused *** second line"
    )
    assert f"trainlab export {run.name} --to csv" in line
    assert not [
        path for path in run.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert KEY not in out + err


def test_a_tracker_that_calls_exit_stops_nothing(tmp_path: Path, use: Any) -> None:
    told = use(Told())
    told.log = lambda _: sys.exit(3)  # type: ignore[method-assign]
    assert record(trained(tmp_path))["status"] == "finished"


def test_a_tracker_that_hangs_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, use: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainlab.trackers.queue.END_SECONDS", 0.1)
    never, told = threading.Event(), use(Told())
    told.log = lambda _: never.wait()  # type: ignore[method-assign]
    run = trained(tmp_path, steps=20)
    assert record(run)["status"] == "finished"
    assert capsys.readouterr().err.count("it has not taken in everything in time") == 1
    never.set()


def test_points_of_a_tracker_that_lags_far_behind_are_dropped_and_the_training_goes_on(
    tmp_path: Path, use: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST", 10)
    monkeypatch.setattr("trainlab.trackers.queue.END_SECONDS", 0.1)
    never, told = threading.Event(), use(Told())
    told.start = lambda _: never.wait() and ""  # type: ignore[method-assign,assignment]
    run = trained(tmp_path, steps=100)
    assert record(run)["last"]["train/loss"]["step"] == 99
    assert capsys.readouterr().err.count("it is 10 points behind") == 1
    never.set()


def test_an_interrupted_run_waits_for_a_shorter_time() -> None:
    assert queue.STOP_SECONDS < 5 < queue.END_SECONDS


def test_an_unknown_tracker_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tracker 'wandbb'.*wandb"):
        trainlab.Run("exp", logs=tmp_path, tracker="wandbb")
    with pytest.raises(UserError, match=r"no tracker 'wandbb'.*wandb"):
        TrainingConfig.parse({"tracker": "csv,wandbb"})
    assert not list(tmp_path.iterdir())


def test_a_tracker_whose_package_is_missing_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"TRACKERS=mlflow .*make build.*trainlab\[mlflow\]"):
        trainlab.Run("exp", logs=tmp_path, tracker="mlflow")
    with pytest.raises(UserError, match=r"wandb is not installed"):
        TrainingConfig(tracker="wandb").check_machine()
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_always_there_and_where_a_run_is_followed_is_no_part_of_its_name(
    tmp_path: Path,
) -> None:
    assert TrainingConfig().tracker == "tensorboard"
    assert TrainingConfig(tracker=" csv , tensorboard,csv").tracker == "csv"
    with trainlab.Run("exp", TrainingConfig(tracker="csv", seed=7), logs=tmp_path, monitor=False) as run:
        run.log({"a": 1.0}, 0)
    assert run.name.endswith("-seed7")
    assert (run.folder / "metrics.csv").is_file()
    assert list(run.folder.glob("*tfevents*"))
