"""Somebody's own Lightning code, with a plain `lightning.Trainer`, recorded in a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint

import trainlab
from noisy_training import STEPS, Data, Noisy, curves
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.signals import Terminated
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer

QUIET: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on workers and the like


class Underscored(Noisy):
    """Calls its metrics as Lightning's own examples do."""

    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().log(name.replace("/", "_"), *args, **kwargs)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def fit(
    run: trainlab.Run, *mine: Callback, module: type[Noisy] = Noisy, epochs: int = 3, **settings: Any
) -> lightning.Trainer:
    lightning.seed_everything(7, verbose=False)
    callbacks = [*mine, *run.callbacks(num_workers=0, **settings)]
    trainer = lightning.Trainer(
        logger=trainlab.RunLogger(run), callbacks=callbacks, max_epochs=epochs, log_every_n_steps=1, **QUIET
    )
    trainer.fit(module(), datamodule=Data())
    return trainer


class Stop(Callback):
    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def record(run: trainlab.Run) -> dict[str, Any]:
    return json.loads((run.folder / "run.json").read_text())


def files(run: trainlab.Run) -> list[str]:
    return sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.ckpt"))


def test_callbacks_of_ones_own_work_beside_the_runs(tmp_path: Path) -> None:
    own = ModelCheckpoint(monitor="val_loss", filename="mine-{epoch}")
    early = EarlyStopping("val_loss", patience=99)
    with trainlab.Run("own", {"lr": 0.05}, logs=tmp_path) as run:
        trainer = fit(run, early, own, LearningRateMonitor("step"), module=Underscored)
    assert trainer.global_step == STEPS
    steps = {tag: points["step"].tolist() for tag, points in curves(run.folder).groupby("tag")}
    assert steps["train_loss"] == steps["train/lr"] == steps["lr-Adam"] == list(range(STEPS))
    assert steps["val_loss"] == [4, 9, 14]
    assert early.best_score < float("inf")
    (mine,) = (name for name in files(run) if "mine" in name)
    assert own.best_model_path == str(run.folder / mine)
    ours = ["best.ckpt", "last.ckpt", "step-00000010.ckpt", "step-00000015.ckpt"]
    assert files(run) == sorted([mine, *(f"checkpoints/{name}" for name in ours)])
    for name in files(run):
        checkpoint.check(run.folder / name)
    assert not list(tmp_path.rglob("lightning_logs"))
    assert record(run)["best_checkpoint"]["monitor"] == "val_loss"
    assert record(run)["planned"]["steps"] == STEPS


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, SystemExit)])
def test_a_stop_saves_and_a_resume_goes_on_as_if_there_had_been_none(
    number: int, raised: type[BaseException], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trainlab.Run("whole", logs=tmp_path) as run:
        whole = fit(run)
    expected, before = curves(run.folder), signal.getsignal(signal.SIGINT)
    with pytest.raises(raised), trainlab.Run("own", logs=tmp_path) as run:
        fit(run, Stop(number, 6))
    assert signal.getsignal(signal.SIGINT) is before
    assert record(run)["status"] == "interrupted"
    assert checkpoint.newest(run.folder) == run.checkpoints / "step-00000007.ckpt"
    with trainlab.Run("own", logs=tmp_path, resume="last") as run:
        trainer = fit(run)
        weights, found = trainer.lightning_module.state_dict(), curves(run.folder)
        trainer.validate(Noisy(), datamodule=Data(), verbose=False)
    assert trainer.ckpt_path is None, "only a fit goes on from a checkpoint"
    assert "resumed from step 7: " in capsys.readouterr().out
    assert trainer.global_step == STEPS
    for name, value in weights.items():
        assert torch.equal(value, whole.lightning_module.state_dict()[name]), name
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


class Watch(Callback):
    """Takes down what was printed before the first step."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.before = capsys, ""

    def on_train_start(self, *_: Any) -> None:
        self.before = self.capsys.readouterr().out


@pytest.mark.parametrize("plain", [True, False])
def test_a_metric_that_is_missing_is_told_once_before_the_training(
    plain: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(capsys)
    config = TrainingConfig(accelerator="cpu", num_workers=0, monitor="val/lost", mode="min")
    with trainlab.Run("own", config, logs=tmp_path) as run:
        if plain:
            fit(run, watch)
        else:
            Trainer(run, config, callbacks=[watch]).fit(Noisy(), Data())
    said = "warning: monitor=val/lost: nothing of that name was logged"
    assert said in watch.before
    assert "Did you mean 'val/loss'?" in watch.before
    assert said not in capsys.readouterr().out


def test_settings_are_those_of_the_run_and_then_those_of_the_call(tmp_path: Path) -> None:
    config = TrainingConfig(keep=1, checkpoint_every="1")
    with trainlab.Run("own", config, logs=tmp_path) as run:
        fit(run, save_top_k=0)
    assert files(run) == ["checkpoints/last.ckpt", "checkpoints/step-00000015.ckpt"]
    with trainlab.Run("own", {"monitor": "something of mine"}, logs=tmp_path) as run:
        with pytest.raises(UserError, match=r"moniter.*Did you mean 'monitor'"):
            run.callbacks(moniter="val_acc")
        with pytest.raises(UserError, match="it is unknown whether less or more"):
            run.callbacks(monitor="score")
        run.callbacks(monitor="score", mode="max")


class Worsening(Underscored):
    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", float(self.current_epoch))


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (3, 4), (None, 6)])
def test_a_training_that_no_longer_improves_is_ended_early(
    patience: int | None, epochs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainingConfig(accelerator="cpu", num_workers=0, epochs=6, patience=patience)
    with trainlab.Run("own", config, logs=tmp_path) as run:
        trainer = Trainer(run, config)
        trainer.fit(Worsening(), Data())
    assert trainer.current_epoch == epochs
    assert record(run)["status"] == "finished"
    said = f"stopped after epoch {epochs}: val_loss has not been better than 0.000 for the last {patience}"
    assert (said in capsys.readouterr().out) == (patience is not None)
    assert checkpoint.load(run.checkpoints / "last.ckpt")["epoch"] == epochs


def test_patience_goes_on_counting_after_a_resume(tmp_path: Path) -> None:
    config = TrainingConfig(accelerator="cpu", num_workers=0, epochs=6, patience=3)
    with pytest.raises(KeyboardInterrupt), trainlab.Run("own", config, logs=tmp_path) as run:
        Trainer(run, config, callbacks=[Stop(signal.SIGINT, 8)]).fit(Worsening(), Data())
    with trainlab.Run("own", config, logs=tmp_path, resume="last") as run:
        trainer = Trainer(run, config)
        trainer.fit(Worsening(), Data())
    assert trainer.current_epoch == 4
