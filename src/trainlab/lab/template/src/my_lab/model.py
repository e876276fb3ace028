"""The data and the network. Put your own in their places: any LightningModule, any DataLoader."""

from __future__ import annotations

import math

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from my_lab.config import SpiralsConfig


class Spirals(lightning.LightningDataModule):
    """Points [N, 2] of two spirals, and which of the two each lies on [N]."""

    def __init__(self, config: SpiralsConfig) -> None:
        super().__init__()
        self.config = config
        chance = torch.Generator().manual_seed(config.seed)
        label = torch.arange(config.points) % 2
        turn = torch.rand(config.points, generator=chance)
        angle = 2 * math.pi * turn + math.pi * label
        point = turn[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        point += config.noise * torch.randn(point.shape, generator=chance)
        self.train, self.val = random_split(TensorDataset(point, label), [0.8, 0.2], chance)

    def train_dataloader(self) -> DataLoader:
        """Return the points to learn from, in a new order each epoch."""
        return DataLoader(self.train, self.config.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the points held out."""
        return DataLoader(self.val, self.config.batch_size)


class Network(lightning.LightningModule):
    """Two hidden layers; scores [N, 2] from points [N, 2]."""

    def __init__(self, config: SpiralsConfig) -> None:
        super().__init__()
        self.config = config
        wide = config.width
        self.layers = nn.Sequential(
            nn.Linear(2, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 2)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Return the scores of both spirals."""
        return self.layers(points)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of a batch; `log` makes it a curve."""
        points, labels = batch
        loss = nn.functional.cross_entropy(self(points), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        """Log loss and accuracy of the points held out; the weights with the lowest `val/loss` are kept."""
        points, labels = batch
        scores = self(points)
        self.log("val/loss", nn.functional.cross_entropy(scores, labels))
        self.log("val/accuracy", (scores.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam on all weights."""
        return torch.optim.Adam(self.parameters(), self.config.learning_rate)
