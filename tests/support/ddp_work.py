"""What tests/training/test_distributed.py trains, in processes that import it from here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer


class Net(lightning.LightningModule):
    """Three classes by a linear layer; like many a backbone it has a part that the loss doesn't reach."""

    def __init__(self, at_step: Callable[[lightning.LightningModule], None] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="at_step")
        self.layer, self.pooler, self.at_step = nn.Linear(4, 3), nn.Linear(4, 4), at_step

    def training_step(self, batch: list[Tensor]) -> Tensor:
        if self.at_step:
            self.at_step(self)
        x, y = batch
        loss = nn.functional.cross_entropy(self.layer(x), y)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        x, y = batch
        self.log_dict({"val/loss": nn.functional.cross_entropy(self.layer(x), y)})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.05)


class Points(lightning.LightningDataModule):
    """Forty points to train on, five batches an epoch; seven to validate on, which two can't share."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(points(40, 1), batch_size=8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(points(7, 2), batch_size=3)


def points(count: int, seed: int) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.argmax(1) % 3)


def kill_the_second(module: lightning.LightningModule) -> None:
    if module.global_step == 7 and module.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def interrupt(module: lightning.LightningModule) -> None:
    if module.global_step == 7:
        os.kill(os.getpid(), signal.SIGINT)


def fail_at_seven(module: lightning.LightningModule) -> None:
    if module.global_step == 7:
        raise ValueError("seven")


class Forever(Points):
    """Many epochs' worth."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(points(80_000, 1), batch_size=8)


def train(
    logs: Path, devices: int, at_step: Any = None, data: Any = None, **settings: Any
) -> tuple[trainlab.Run, Trainer]:
    torch.manual_seed(0)
    config = TrainingConfig(accelerator="cpu", devices=devices, **settings)
    with trainlab.Run("line", config, name=str(devices), logs=logs) as run:
        trainer = Trainer(run, config)
        trainer.fit(Net(at_step), data or Points())
    return run, trainer
