"""Runs on storage that can do less than a Linux disk: Google Drive's, SMB's, a memory card's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

import bare_storage
import trainlab
from lab import COMMAND
from noisy_training import STEPS, curves, fit, settings
from trainlab.errors import UserError
from trainlab.run import checkpoint, events, lock, record
from trainlab.runs import trash
from waiting import until

SAVING = """
import sys, time, numpy as np, trainlab
with trainlab.Run("mine", {"lr": 0.5}, logs=sys.argv[1], monitor=False) as run:
    for step in range(3):
        run.log({"train/loss": float(step)})
        run.save({"weights": np.full(3, step)})
    run.log({"train/loss": 9.0})
    print(run.folder, flush=True)
    time.sleep(600)
"""


class CtrlC(Callback):
    """Somebody stops the training behind its seventh step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 7:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", params=["bare", "exfat"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mount without links, locks and fsync, and a real exFAT, which has the latter two."""
    mount = getattr(bare_storage, request.param)(tmp_path_factory.mktemp(request.param))
    try:
        place = mount.__enter__()
    except RuntimeError as error:
        print(reason := f"{request.param}: {error}")
        pytest.skip(reason)
    yield place
    mount.__exit__(None, None, None)


@pytest.fixture
def drive(mounted: Path, tmp_path: Path) -> Path:
    """A folder of runs of the test's own."""
    folder = mounted / tmp_path.name
    folder.mkdir()
    return folder


def command(*words: str | Path) -> str:
    """Run `trainlab`, and return what it printed."""
    return subprocess.check_output([*COMMAND[:-1], *words], text=True, stderr=subprocess.STDOUT)


def test_a_plain_loop_saves_is_killed_and_resumed(drive: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVING), drive],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        folder = Path(process.stdout.readline().strip())
        assert "running" in command("runs", "--logs", drive)
        assert [*lock.holders(folder)] == [process.pid]
        with pytest.raises(UserError, match="still running"):
            trainlab.Run("mine", {"lr": 0.5}, logs=drive, resume="last", monitor=False)
        process.kill()
        warned = process.stderr.read()
    has_locks = "card" in drive.parts
    assert warned.count("storage without locks: two processes on different machines") == (not has_locks)
    assert not lock.alive(folder)
    assert "interrupted" in command("runs", "--logs", drive)
    with trainlab.Run("mine", {"lr": 0.5}, logs=str(drive), resume="last", monitor=False) as run:
        state = run.load()
        assert state is not None
        assert (run.folder, run.step, state["weights"].tolist()) == (folder, 3, [2, 2, 2])
        run.log({"train/loss": 30.0})
    assert events.read(folder).curves["train/loss"].values == [0.0, 1.0, 2.0, 30.0]
    assert record.read(folder).status == "finished"


def test_a_run_that_this_process_has_is_not_taken_twice(drive: Path) -> None:
    with trainlab.Run("mine", logs=drive, monitor=False) as run:
        with pytest.raises(UserError, match="this very process"):
            trainlab.Run("mine", logs=drive, resume=run.folder, monitor=False)
        assert lock.alive(run.folder)
    assert not lock.alive(run.folder)


def test_a_run_is_stopped_where_the_storage_has_no_locks(drive: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVING), drive], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        assert "saved at step 3" in command("stop", folder)
        assert process.wait(60) == 143


def test_a_lightning_run_is_stopped_and_resumed_bit_for_bit(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINLAB_LOGS", str(drive))
    config = settings(checkpoint_every="1h", every_n_epochs=100)
    with trainlab.Run("whole", config) as run:
        fit(run, config)
    expected = curves(run.folder)
    whole = checkpoint.load(run.checkpoints / checkpoint.LAST)["state_dict"]
    with pytest.raises(KeyboardInterrupt), trainlab.Run("noisy", config) as run:
        fit(run, config, CtrlC())
    with trainlab.Run("noisy", config, resume="last") as run:
        assert fit(run, config).global_step == STEPS
    pd.testing.assert_frame_equal(curves(run.folder), expected, check_exact=True)
    again = checkpoint.load(run.checkpoints / checkpoint.LAST)["state_dict"]
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not list(run.folder.rglob(".*.tmp"))


def test_names_that_differ_in_case_alone_are_one_experiment_with_two_runs(drive: Path) -> None:
    runs = []
    for experiment, name in (("News", "First"), ("news", "first")):
        with trainlab.Run(experiment, name=name, logs=drive, monitor=False) as run:
            run.log({"val/loss": 1.0})
            run.save({"weights": np.zeros(1)})
        runs.append(run)
    assert len({run.folder for run in runs}) == 2
    assert {run.experiment for run in runs} == {"News"}
    assert trainlab.find("last", logs=drive, experiment="news") == runs[1].folder
    shown = command("runs", "--logs", drive)
    assert all(run.name in shown for run in runs)
    with trainlab.Run("news", logs=drive, resume="last", monitor=False) as again:
        assert again.folder == runs[1].folder


def test_a_name_that_windows_refuses_becomes_one_that_it_takes(drive: Path) -> None:
    with trainlab.Run('a:b<c>"d"|e?f*. ', name="lr=1/2: x. ", logs=drive, monitor=False) as run:
        run.log({"val/top:1": 1.0})
    assert run.experiment == "a-b-c-d-e-f"
    assert run.name.endswith("-lr=1-2-x")


def test_a_run_goes_to_the_trash_and_comes_back(drive: Path) -> None:
    with trainlab.Run("mine", logs=drive, monitor=False) as run:
        run.log({"val/loss": 1.0})
        run.save({"weights": np.zeros(1)})
    before = {path.name for path in run.folder.rglob("*")}
    entry = trash.delete(run.folder, drive)
    assert not run.folder.exists()
    assert list(trash.entries(drive)) == [f"mine/{run.name}"]
    trash.restore(entry)
    assert {path.name for path in run.folder.rglob("*")} == before
    checkpoint.check(run.checkpoints / checkpoint.LAST)


@pytest.mark.parametrize("number", ["EIO", "ENOSPC", "EROFS"])
def test_a_disk_that_fails_is_no_storage_without_fsync(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    code = getattr(errno, number)

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with trainlab.Run("mine", logs=tmp_path, monitor=False) as run:
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=os.strerror(code)):
            run.save({"weights": np.zeros(1)})
        monkeypatch.undo()
    until(lambda: not lock.alive(run.folder), "its end")
