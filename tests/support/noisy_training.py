"""A training that draws random numbers everywhere: what a resume must reproduce bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
import torchmetrics
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab.runs.frames import scalars
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer

CLOCKS = ("vitals/",)  # tags that no two trainings share
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


def settings(**changes: Any) -> TrainingConfig:
    usual = {"accelerator": "cpu", "num_workers": 0, "checkpoint_every": "1", "keep": 99}
    return TrainingConfig(**usual | changes)


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
