"""A training whose metric is what it is told, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer


class Scored(lightning.LightningModule):
    """Measures what it is told, epoch by epoch, in three epochs of two steps."""

    def __init__(self, tag: str = "val/loss", scores: tuple[float, ...] = (3.0, 1.0, 2.0)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log(self.hparams["tag"], self.hparams["scores"][self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)


def train(logs: Path, module: lightning.LightningModule, *callbacks: Callback, **changes: Any) -> Trainer:
    config = TrainingConfig(accelerator="cpu", num_workers=0, **changes)
    with trainlab.Run("kept", config, logs=logs) as run:
        trainer = Trainer(run, config, callbacks=callbacks)
        trainer.fit(module, loader(), loader())
    return trainer
