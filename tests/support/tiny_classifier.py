"""A small text classifier without a defect, and its data: what the checks are tested on."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trainlab.checks.subject import Subject

CLASSES, OWN_WORDS, LENGTH = 3, 4, 8
SHARES = (0.6, 0.3, 0.1)
WORDS = ["", *(f"{letter}{number}" for letter in "abcx" for number in range(OWN_WORDS))]  # "" is padding
COMMON = len(WORDS) - OWN_WORDS  # the first of the words that belong to no class


def texts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids [count, LENGTH], padded, and labels [count]: a label is the class of most of the words."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(SHARES), count, replacement=True, generator=random)
    own = 1 + labels[:, None] * OWN_WORDS + torch.randint(OWN_WORDS, (count, LENGTH), generator=random)
    common = COMMON + torch.randint(OWN_WORDS, (count, LENGTH), generator=random)
    ids = torch.where(torch.rand(count, LENGTH, generator=random) < 0.4, own, common)
    ids[:, 0] = own[:, 0]
    lengths = torch.randint(4, LENGTH + 1, (count, 1), generator=random)
    return ids * (torch.arange(LENGTH) < lengths), labels


def words(ids: Tensor) -> list[str]:
    """Return what ids mean."""
    return [" ".join(filter(None, (WORDS[each] for each in row))) for row in ids.tolist()]


class SoundModel(lightning.LightningModule):
    """Mean of the words' vectors, a hidden layer, scores; the final bias is the class prior's logarithm."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), 16, padding_idx=0)
        self.hidden = nn.Linear(16, width)
        self.last = nn.Linear(width, CLASSES)
        nn.init.zeros_(self.last.weight)
        self.last.bias.data = torch.tensor(SHARES).log()

    def pooled(self, ids: Tensor) -> Tensor:
        mask = (ids > 0).float().unsqueeze(-1)
        return (self.words(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.hidden(self.pooled(ids)).relu())

    def training_step(self, batch: list[Tensor]) -> Tensor:
        ids, labels = batch
        loss = nn.functional.cross_entropy(self(ids), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        ids, labels = batch
        self.log("val/accuracy", (self(ids).argmax(-1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.03)


class SoundData(lightning.LightningDataModule):
    """Texts to train on, and others to validate on."""

    def __init__(self) -> None:
        super().__init__()
        ids, labels = texts(700, seed=0)
        ids, first = torch.unique(ids, dim=0, return_inverse=True)
        labels = torch.zeros(len(ids), dtype=torch.long).scatter(0, first, labels)
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))
        ids, labels = ids[order], labels[order]
        self.training = TensorDataset(ids[:-90], labels[:-90])
        self.validation = TensorDataset(ids[-90:], labels[-90:])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.training, batch_size=32, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=25)


class SoundSubject(Subject):
    """All facts: no check is skipped."""

    steps = 60
    overfit_steps = 100

    def __init__(self, module: Any = SoundModel, data: Any = SoundData) -> None:
        super().__init__("sound", module, data, classes=CLASSES)

    def smaller(self) -> SoundModel:
        return SoundModel(width=1)

    def slow(self, module: SoundModel, batch: list[Tensor]) -> Tensor:
        return torch.cat([module(ids[ids > 0][None]) for ids in batch[0]])  # without padding

    def decode(self, batch: list[Tensor]) -> list[str]:
        return words(batch[0])

    def texts(self, data: SoundData, rows: Any) -> list[str]:
        return words(SoundData().training[list(rows)][0])


def subject(settings: dict[str, str]) -> Subject:
    """Return the sound subject, or with `defect=yes` one that never learns."""
    return SoundSubject(Idle) if settings.get("defect") == "yes" else SoundSubject()


class Idle(SoundModel):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.0)
