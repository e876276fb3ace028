"""A fine-tuning that stops anywhere and goes on: the same weights, the same curves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from transformers import TrainerCallback, TrainerState, TrainingArguments

import trainlab
from noisy_training import curves
from noisy_tuning import STEPS, tune, tuner
from project import CHECKOUT
from trainlab.errors import UserError
from trainlab.run import checkpoint, stopping
from trainlab.training.transformers import newest

EVERY = {"save_steps": 1}  # step; train/loss is then logged at each, too
SELDOM = {"save_steps": 100, "logging_steps": 1, "eval_steps": 3}


class InterruptIn(TrainerCallback):
    """Sends a signal, once, in one of a callback's methods, when so many steps are made."""

    def __init__(self, method: str, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number
        setattr(self, method, self.interrupt)

    def interrupt(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def whole_training(logs: Path, **changes: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    with trainlab.Run("tuned", logs=logs, monitor=False) as run:
        done = tune(run, **changes)
    assert done.state.global_step == STEPS
    return run.folder, done.model.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A training without a stop, which saved each of its steps: its folder and final weights."""
    return whole_training(tmp_path_factory.mktemp("whole"), **EVERY)


@pytest.fixture(scope="module")
def seldom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A training without a stop, which saved its last step alone."""
    return whole_training(tmp_path_factory.mktemp("seldom"), **SELDOM)


def assert_same(
    run: trainlab.Run,
    done: transformers.Trainer,
    whole: tuple[Path, dict[str, torch.Tensor]],
    at: str,
) -> None:
    folder, weights = whole
    assert done.state.global_step == STEPS, at
    for name, value in done.model.state_dict().items():
        assert torch.equal(value, weights[name]), f"{name} after {at}"
    pd.testing.assert_frame_equal(curves(run.folder), curves(folder), check_exact=True, obj=at)


def test_a_training_that_stopped_after_any_step_goes_on_as_if_it_had_not(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [path.name for path in checkpoint.full_states(whole[0])]
    assert names == [f"checkpoint-{step}" for step in range(STEPS, 0, -1)]
    for name in names:
        copied = tmp_path / "tuned" / name.replace("checkpoint", "from")
        shutil.copytree(whole[0], copied)
        chosen = copied / "checkpoints" / name
        with trainlab.Run("tuned", resume=chosen, logs=tmp_path, monitor=False) as run:
            done = tune(run, **EVERY)
        assert f"resumed from step {checkpoint.step_of(chosen)}: {chosen}" in capfd.readouterr().out
        assert_same(run, done, whole, name)


@pytest.mark.parametrize(
    ("interrupt", "saved"),
    [
        (("on_train_begin", 0, signal.SIGINT), None),
        (("on_step_begin", 4, signal.SIGTERM), 5),
        (("on_step_end", 4, signal.SIGINT), 4),
        (("on_step_end", 3, signal.SIGTERM), 3),
        (("on_prediction_step", 3, signal.SIGINT), 3),
        (("on_evaluate", 6, signal.SIGINT), 6),
        (("on_epoch_end", 5, signal.SIGTERM), 5),
        (("on_epoch_begin", 5, signal.SIGINT), 6),
        (("on_train_end", 10, signal.SIGTERM), 10),
    ],
)
def test_an_interruption_anywhere_loses_nothing(
    interrupt: tuple[str, int, signal.Signals],
    saved: int | None,
    seldom: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    method, step, number = interrupt
    kind, reason = {
        signal.SIGINT: (KeyboardInterrupt, "KeyboardInterrupt"),
        signal.SIGTERM: (SystemExit, "SIGTERM"),
    }[number]
    with pytest.raises(kind), trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, InterruptIn(method, step, number), **SELDOM)
    record = record_of(run.folder)
    assert (record["status"], record["reason"]) == ("interrupted", reason)
    states = [path.name for path in checkpoint.full_states(run.folder)]
    assert states == ([] if saved is None else [f"checkpoint-{saved}"])
    assert stopping.outcome(run.folder).startswith(f"saved at step {saved}" if saved else "no checkpoint")
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run:
        done = tune(run, **SELDOM)
    assert_same(run, done, seldom, method)


@pytest.mark.parametrize("strategy", ["no", "best", "epoch"])
def test_it_is_saved_before_a_stop_whatever_else_is(strategy: str, tmp_path: Path) -> None:
    """With `best` the Trainer takes back what a callback says at a step that is evaluated."""
    told = {"save_strategy": strategy, "metric_for_best_model": "accuracy"}
    with pytest.raises(KeyboardInterrupt), trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, InterruptIn("on_step_end", 6), **told)
    newest_state = checkpoint.newest(run.folder)
    assert newest_state == run.checkpoints / "checkpoint-6"


def test_signals_do_what_they_did_once_the_run_is_over(tmp_path: Path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, **SELDOM)
        with pytest.raises(KeyboardInterrupt):  # between two trainings it ends what is at work
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_training_that_fails_leaves_signals_as_they_were(tmp_path: Path) -> None:
    class Fail(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("out of luck")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, Fail())
    assert signal.getsignal(signal.SIGINT) is before
    assert record_of(run.folder)["status"] == "failed"


class DieIn(TrainerCallback):
    """Kills the process in the midst of a step."""

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    often = {"save_steps": 4}
    folder = whole_training(tmp_path / "whole", **often)
    child = os.fork()
    if child == 0:
        try:
            with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
                tune(run, DieIn(), **often)
        finally:
            os._exit(1)  # this is no second pytest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run:
        assert run.checkpoint == run.checkpoints / "checkpoint-4"
        done = tune(run, **often)
    assert_same(run, done, folder, "a kill after seven steps, four of them saved")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors is not what was saved"),
        (lambda folder: flip(folder / "optimizer.pt"), "optimizer.pt is not what was saved"),
        (lambda folder: (folder / "scheduler.pt").unlink(), "scheduler.pt is not what was saved"),
        (lambda folder: (folder / checkpoint.SUMS).unlink(), "its saving was cut off"),
        (lambda folder: (folder / checkpoint.SUMS).write_text(""), "SHA256SUMS is not what was saved"),
    ],
)
def test_where_the_newest_is_damaged_the_one_before_is_gone_on_from(
    damage: Any,
    said: str,
    whole: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "damaged")
    checkpoints = tmp_path / "tuned" / "damaged" / "checkpoints"
    damage(checkpoints / "checkpoint-10")
    assert newest(checkpoints) == str(checkpoints / "checkpoint-9")
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run:
        assert run.checkpoint == checkpoints / "checkpoint-9"
        done = tune(run, **EVERY)
    assert said in capsys.readouterr().out
    assert_same(run, done, whole, "checkpoint-9")
    checkpoint.check(checkpoints / "checkpoint-10")


class CutOff(TrainerCallback):
    """Ends the process in the midst of a save: what is written by then is all there is."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 6:
            transformers.TrainerState.save_to_json = lambda *_: os._exit(9)  # type: ignore[method-assign]


def test_a_half_written_checkpoint_is_never_chosen(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
                tune(run, CutOff())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder,) = (tmp_path / "tuned").iterdir()
    assert (folder / "checkpoints" / "checkpoint-6" / "model.safetensors").exists()
    assert checkpoint.newest(folder) == folder / "checkpoints" / "checkpoint-3"


def test_checkpoints_may_lie_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, InterruptIn("on_step_end", 4), **SELDOM, output_dir=str(tmp_path / "mine"))
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run:
        assert run.checkpoint is None
        found = newest(tmp_path / "mine")
        assert found == str(tmp_path / "mine" / "checkpoint-4")
        done = tuner(run, **SELDOM, output_dir=str(tmp_path / "mine"))
        done.train(resume_from_checkpoint=found)
    assert newest(tmp_path / "nothing") is None
    steps = curves(run.folder).query("tag == 'train/loss'")["step"].tolist()
    assert steps == list(range(STEPS))


SHARED = """
import os, time
from pathlib import Path
import transformers, trainlab
from noisy_tuning import tune

def late(self, folder, save=transformers.Trainer._save_rng_state):
    time.sleep(int(os.environ["RANK"]))
    save(self, folder)

transformers.Trainer._save_rng_state = late
base = Path(os.environ["BASE"])
with trainlab.Run("shared", logs=base / os.environ["RANK"], monitor=False) as run:
    tune(run, output_dir=str(base / "out"), ddp_backend="gloo", max_steps=1)
"""


def test_what_several_processes_write_is_whole_before_it_is_sealed(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    paths = os.pathsep.join(str(CHECKOUT / name) for name in ("src", "tests/support"))
    environment = os.environ | {"BASE": str(tmp_path), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    script = str(tmp_path / "shared.py")
    done = subprocess.run(
        [*command, script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    state = tmp_path / "out" / "checkpoint-1"
    assert "rng_state_1.pth" in (state / checkpoint.SUMS).read_text()
    checkpoint.check(state)


def test_a_finished_run_goes_on_with_more_epochs_but_not_with_fewer(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "finished")
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run:
        assert tune(run, num_train_epochs=3).state.global_step == STEPS + 5
    with (
        pytest.raises(UserError, match="has done 15 steps already, and 5 are wanted"),
        trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run,
    ):
        tune(run, num_train_epochs=1)


def test_a_run_that_goes_on_does_not_start_anew_by_an_oversight(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "tuned" / "finished")
    before = curves(tmp_path / "tuned" / "finished")
    with (
        pytest.raises(UserError, match=r"resume_from_checkpoint=run\.checkpoint"),
        trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as run,
    ):
        tuner(run).train()
    pd.testing.assert_frame_equal(curves(run.folder), before)


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    """Its count is in the checkpoint, and Transformers takes it from there where it is told to."""

    def patient() -> TrainerCallback:
        return transformers.EarlyStoppingCallback(early_stopping_patience=3)

    told = {
        "eval_steps": 1,
        "logging_steps": 1,
        "save_steps": 1,
        "learning_rate": 3.0,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,
    }
    with trainlab.Run("tuned", logs=tmp_path / "whole", monitor=False) as run:
        stopped = tune(run, patient(), **told)
    at = stopped.state.global_step
    assert at < STEPS
    with pytest.raises(KeyboardInterrupt), trainlab.Run("tuned", logs=tmp_path, monitor=False) as again:
        tune(again, patient(), InterruptIn("on_step_begin", at - 2), **told)
    with trainlab.Run("tuned", resume="last", logs=tmp_path, monitor=False) as again:
        assert tune(again, patient(), **told).state.global_step == at
    pd.testing.assert_frame_equal(curves(again.folder), curves(run.folder), check_exact=True)
