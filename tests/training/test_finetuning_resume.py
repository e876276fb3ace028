"""A fine-tuning that stops anywhere and goes on: the same weights, the same curves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

import trainlab
from noisy_training import curves
from noisy_tuning import STEPS, Texts, settings, tune, tuner
from trainlab.errors import UserError
from trainlab.run import checkpoint


class InterruptIn(TrainerCallback):
    """Sends SIGINT, once, in one of a callback's methods, when so many steps are made."""

    def __init__(self, method: str, step: int) -> None:
        self.step = step
        setattr(self, method, self.interrupt)

    def interrupt(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Workers leave torch fewer threads, and sums of floats depend on how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A training without a stop, which saved each of its steps: its folder and final weights."""
    config = settings(checkpoint_every="1")
    with trainlab.Run("tuned", config, logs=tmp_path_factory.mktemp("whole")) as run:
        done = tune(run, config)
    assert done.state.global_step == STEPS
    return run.folder, done.model.state_dict()


def assert_same(done: Any, whole: tuple[Path, dict[str, torch.Tensor]], at: str) -> None:
    folder, weights = whole
    assert done.state.global_step == STEPS, at
    for name, value in done.model.state_dict().items():
        assert torch.equal(value, weights[name]), f"{name} after {at}"
    pd.testing.assert_frame_equal(curves(done.run.folder), curves(folder), check_exact=True, obj=at)


def test_a_training_that_stopped_after_any_step_goes_on_as_if_it_had_not(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [path.name for path in checkpoint.full_states(whole[0])]
    assert len(names) == STEPS
    for name in names:
        copied = tmp_path / "tuned" / name
        shutil.copytree(whole[0], copied)
        chosen = copied / "checkpoints" / name
        config = settings(num_workers=2 if name == "step-00000007.ckpt" else 0)  # nothing depends on them
        with trainlab.Run("tuned", config, resume=chosen, logs=tmp_path) as run:
            done = tune(run, config)
        assert f"going on from step {int(chosen.stem[-8:])}: {chosen}" in capfd.readouterr().out
        assert_same(done, whole, name)


@pytest.mark.parametrize(
    ("method", "step", "saved"),
    [
        ("on_train_begin", 0, None),
        ("on_step_begin", 4, 5),
        ("on_step_end", 4, 4),
        ("on_step_end", 3, 3),
        ("on_prediction_step", 3, 3),
        ("on_evaluate", 6, 6),
        ("on_step_begin", 6, 6),
        ("on_epoch_end", 5, 5),
        ("on_epoch_begin", 5, 6),
        ("on_train_end", 10, 10),
    ],
)
def test_an_interruption_anywhere_loses_nothing(
    method: str,
    step: int,
    saved: int | None,
    whole: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    config = settings(every_n_epochs=100)
    with pytest.raises(KeyboardInterrupt), trainlab.Run("tuned", config, logs=tmp_path) as run:
        tune(run, config, InterruptIn(method, step))
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("interrupted", "KeyboardInterrupt")
    states = [path.name for path in run.checkpoints.glob("step-*.ckpt")]
    assert states == ([] if saved is None else [f"step-{saved:08d}.ckpt"])
    with trainlab.Run("tuned", config, resume="last", logs=tmp_path) as run:
        done = tune(run, config)
    assert_same(done, whole, method)


class DieIn(TrainerCallback):
    """Kills the process in the midst of a step."""

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_goes_on_from_its_newest_checkpoint(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    config = settings(checkpoint_every="4", every_n_epochs=100)
    child = os.fork()
    if child == 0:
        try:
            with trainlab.Run("tuned", config, logs=tmp_path) as run:
                tune(run, config, DieIn())
        finally:
            os._exit(1)  # this is no second pytest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with trainlab.Run("tuned", config, resume="last", logs=tmp_path) as run:
        assert run.checkpoint == run.checkpoints / "step-00000004.ckpt"
        done = tune(run, config)
    assert_same(done, whole, "a kill after seven steps, four of them saved")


def test_where_the_newest_is_damaged_the_one_before_is_gone_on_from(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "damaged")
    checkpoints = tmp_path / "tuned" / "damaged" / "checkpoints"
    newest, before = checkpoints / "step-00000010.ckpt", checkpoints / "step-00000009.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    (checkpoints / "last.ckpt").unlink()
    with trainlab.Run("tuned", settings(), resume="last", logs=tmp_path) as run:
        assert run.checkpoint == before
        done = tune(run, settings())
    assert f"warning: {newest} is damaged" in capsys.readouterr().out
    assert_same(done, whole, before.name)
    checkpoint.check(newest)


def test_a_finished_run_goes_on_with_more_epochs_but_not_with_fewer(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "finished")
    more, fewer = settings(epochs=3), settings(epochs=1)
    with trainlab.Run("tuned", more, resume="last", logs=tmp_path) as run:
        assert tune(run, more).state.global_step == STEPS + 5
    with (
        pytest.raises(UserError, match="epochs=1: this run has trained 3 epochs already"),
        trainlab.Run("tuned", fewer, resume="last", logs=tmp_path) as run,
    ):
        tune(run, fewer)


def test_other_data_in_the_midst_of_an_epoch_are_refused(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "other")
    before = curves(tmp_path / "tuned" / "other")
    chosen = tmp_path / "tuned" / "other" / "checkpoints" / "step-00000007.ckpt"
    with (
        pytest.raises(UserError, match="18 items in batches of 4; the training data is now 17 items"),
        trainlab.Run("tuned", settings(), resume=chosen, logs=tmp_path) as run,
    ):
        tuner(run, settings(), train_dataset=Texts(17, seed=1)).train()
    pd.testing.assert_frame_equal(curves(run.folder), before)
