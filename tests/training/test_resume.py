"""N steps at once and k steps, a stop and the rest: the same weights, the same curves."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
import torchmetrics
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab.runs import checkpoint, scalars
from trainlab.training import Trainer, TrainingConfig

CLOCKS = ("train/samples_per_second", "system/")  # tags that no two trainings share
STEPS = 15  # three epochs of five


class Noisy(lightning.LightningModule):
    """Draws from every source of random numbers, and has learning rates that follow steps and losses."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )
        self.largest = torchmetrics.MaxMetric()

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        (x,) = batch
        noise = random.random() + np.random.rand() + float(torch.rand(1))
        loss = (self.layers(x) - x.sum(1, keepdim=True) - noise).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True)
        self.largest(loss)
        self.log("train/largest", self.largest, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        (x,) = batch
        self.log("val/loss", (self.layers(x) - x.sum(1, keepdim=True)).square().mean() + random.random())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        each_step = {"scheduler": decay, "interval": "step"}
        return [optimizer], [each_step, {"scheduler": plateau, "monitor": "val/loss"}]


class Data(lightning.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        x = torch.randn(38, 3, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x), batch_size=8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(4, 3)), batch_size=2)


class KeepEach(Callback):
    """Copies each checkpoint to a folder as it was before validation and at the end of the epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "before-validation")

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "after-step")

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "after-step")

    def keep(self, trainer: Any, name: str) -> None:
        saved = trainer.run.checkpoints / f"step-{trainer.global_step:08d}.ckpt"
        if saved.exists():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            for each in (saved, checkpoint.digest_file(saved)):
                shutil.copy(each, self.folder / name)


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(accelerator="cpu", num_workers=0, **{"checkpoint_every": "1", "keep": 99} | changes)


def fit(run: trainlab.Run, config: TrainingConfig, *callbacks: Callback, **options: Any) -> Trainer:
    lightning.seed_everything(7, verbose=False)  # the module's first weights
    module = Noisy()
    trainer = Trainer(run, config, callbacks=callbacks, **options)
    trainer.fit(module, Data())
    return trainer


def curves(folder: Path) -> pd.DataFrame:
    points = scalars(folder)
    points = points[~points["tag"].str.startswith(CLOCKS)]
    return points.sort_values(["tag", "step"])[["tag", "step", "value"]].reset_index(drop=True)


@pytest.fixture(scope="module", params=[1.0, 2], ids=["validated each epoch", "validated every two steps"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict, dict]:
    """A training without a stop: its folder, final weights and options; copies of all its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    options = {"val_check_interval": request.param}
    with trainlab.Run("noisy", settings(), logs=folder) as run:
        done = fit(run, settings(), KeepEach(folder / "kept"), **options)
    assert done.global_step == STEPS
    return run.folder, done.lightning_module.state_dict(), options


def checkpoints(whole: tuple[Path, dict, dict]) -> list[Path]:
    return sorted(whole[0].parents[1].glob("kept/*/step-*.ckpt"))


def test_a_training_that_stopped_after_any_step_goes_on_as_if_it_had_not(
    whole: tuple[Path, dict, dict], tmp_path: Path
) -> None:
    folder, weights, options = whole
    expected = curves(folder)
    kept = checkpoints(whole)
    assert {path.parent.name for path in kept} == {"after-step", "before-validation"}
    assert len({path.name for path in kept}) == STEPS
    for path in kept:
        at = f"{path.parent.name}/{path.name}"
        copied = tmp_path / "noisy" / f"{path.parent.name}-{path.stem}"
        shutil.copytree(folder, copied)
        for each in (path, checkpoint.digest_file(path)):
            shutil.copy(each, copied / "checkpoints")
        chosen = copied / "checkpoints" / path.name
        with trainlab.Run("noisy", settings(), resume=chosen, logs=tmp_path) as run:
            done = fit(run, settings(), **options)
        assert done.global_step == STEPS, at
        for name, value in done.lightning_module.state_dict().items():
            assert torch.equal(value, weights[name]), f"{name} after {at}"
        pd.testing.assert_frame_equal(curves(copied), expected, check_exact=True, obj=at)
