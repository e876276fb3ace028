"""A run that is monitored, and one that is sent to another process."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

import runs_folder
from trainlab.run import events, lock, monitor, record
from trainlab.run.run import Run
from trainlab.runs import listing


def test_a_copy_in_a_spawned_process_logs_into_the_same_run(tmp_path):
    with Run("news", {"seed": 1}, logs=tmp_path) as run:
        for step in range(3):
            run.log({"train/loss": 2.0, "val/loss": 1.0}, step)
        child = multiprocessing.get_context("spawn").Process(target=runs_folder.train, args=(run,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert lock.alive(run.folder)
        assert listing.rows(tmp_path)[0].status == "running"
        run.refresh()
        run.log({"test/loss": 0.5}, 6)
    found = record.read(run.folder)
    assert found.status == "finished"
    assert found.last["train/loss"].step == 5
    assert found.best["train/loss"].value == pytest.approx(0.2)
    assert found.model_extra["best_checkpoint"] == {"path": "checkpoints/best.ckpt"}
    assert events.read(run.folder).curves["train/loss"].steps == [0, 1, 2, 3, 4, 5]
    assert events.read(run.folder).curves["test/loss"].steps == [6]
    assert len(events.files(run.folder)) == 3, "one behind the other: readers don't look back"


def test_a_resumed_run_without_a_checkpoint_starts_again_in_the_other_process_and_once_only(tmp_path):
    with Run("news", logs=tmp_path, monitor=False) as run:
        run.log({"train/loss": 9.0}, 7)
    with Run("news", resume=run.folder, monitor=False) as again:
        pickle.loads(pickle.dumps(again)).log({"train/loss": 2.0}, 3)
        again.refresh()
        again.log({"test/loss": 1.0}, 4)
    assert events.read(run.folder).curves["train/loss"].steps == [3]
    assert record.read(run.folder).resumes[0].step == 0


def system(folder):
    return {
        tag: curve.steps for tag, curve in events.read(folder).curves.items() if tag.startswith("vitals/")
    }


def test_a_run_that_logs_has_a_point_of_what_the_machine_did_however_short_it_is(tmp_path):
    with Run("news", logs=tmp_path) as run:
        run.log({"train/loss": 1.0}, 3)
    assert system(run.folder)["vitals/memory_gib"] == [3]
    assert record.read(run.folder).last["vitals/memory_gib"].value > 0


def test_a_run_that_logs_nothing_or_wants_no_monitor_starts_none(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor.Monitor, "start", lambda _: pytest.fail("it was started"))
    Run("news", logs=tmp_path).finish()
    with Run("news", logs=tmp_path, monitor=False) as run:
        run.log({"train/loss": 1.0}, 3)
    assert system(run.folder) == {}
