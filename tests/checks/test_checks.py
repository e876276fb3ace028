"""Each check fails on a model with exactly its defect, and passes on a sound one."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tiny_classifier import CLASSES, Idle, SoundData, SoundModel, SoundSubject
from trainlab.checks.harness import Finding
from trainlab.checks.run import run_all
from trainlab.checks.subject import Subject


@pytest.fixture(scope="module")
def sound() -> dict[int, Finding]:
    return {finding.number: finding for finding in run_all(SoundSubject())}


@pytest.mark.parametrize("number", range(1, 15))
def test_a_sound_model_passes(sound: dict[int, Finding], number: int) -> None:
    finding = sound[number]
    assert finding.status == "passed", finding.found
    assert finding.threshold
    assert finding.means


class LeakingSplit(SoundData):
    def val_dataloader(self) -> DataLoader:
        held = self.validation[:]
        rows = [torch.cat(pair) for pair in zip(held, self.training[:3], strict=True)]
        return DataLoader(TensorDataset(*rows), batch_size=25)


class Noisy(SoundModel):
    """Adds noise whose seed is the machine's."""

    def forward(self, ids: Tensor) -> Tensor:
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        return super().forward(ids) + 0.1 * torch.randn(len(ids), CLASSES, generator=own)


class OrderOfItsOwn(SoundData):
    def __init__(self) -> None:
        super().__init__()
        order = np.random.default_rng().permutation(len(self.training))
        self.training = TensorDataset(*self.training[torch.from_numpy(order)])


class TenTimesTheLoss(SoundModel):
    def training_step(self, batch: list[Tensor]) -> Tensor:
        return 10 * super().training_step(batch)


class LossSummed(SoundModel):
    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="sum")


class LargeWeights(SoundModel):
    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        nn.init.normal_(self.last.weight, std=10)


class BiasAtZero(SoundModel):
    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        nn.init.zeros_(self.last.bias)


class DeadInput(SoundModel):
    def pooled(self, ids: Tensor) -> Tensor:
        return super().pooled(torch.ones_like(ids)) + 0 * super().pooled(ids)


class ShuffledLabels(SoundData):
    def __init__(self) -> None:
        super().__init__()
        ids, labels = self.training[:]
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
        self.training = TensorDataset(ids, labels[order])


class LabelsOffByOne(SoundData):
    def __init__(self) -> None:
        super().__init__()
        ids, labels = self.training[:]
        self.training = TensorDataset(ids, (labels + 1) % CLASSES)


class CutGradient(SoundModel):
    """Only the last bias is learned."""

    def forward(self, ids: Tensor) -> Tensor:
        return (self.last(self.hidden(self.pooled(ids)).relu()) - self.last.bias).detach() + self.last.bias


class ShiftedIds(SoundData):
    def __init__(self) -> None:
        super().__init__()
        ids, labels = self.training[:]
        self.training = TensorDataset((ids + (ids > 0)).clamp(max=16), labels)


class LeakingNorm(SoundModel):
    """Batch norm that has only the batch to go by."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)

    def pooled(self, ids: Tensor) -> Tensor:
        return self.norm(super().pooled(ids))


class MixedUp(SoundModel):
    """A view where a transposition was meant."""

    def pooled(self, ids: Tensor) -> Tensor:
        vectors = super().pooled(ids)
        return vectors.T.reshape(vectors.shape)


class LastBatchDropped(SoundData):
    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=25, drop_last=True)


class PaddingCounts(SoundModel):
    def pooled(self, ids: Tensor) -> Tensor:
        return self.words(ids).mean(1)


class Bottleneck(SoundModel):
    """However wide the hidden layer, one number gets through."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(1)


DEFECTS: list[tuple[int, Callable[[], Subject]]] = [
    (1, lambda: SoundSubject(data=LeakingSplit)),
    (2, lambda: SoundSubject(Noisy)),
    (2, lambda: SoundSubject(data=OrderOfItsOwn)),
    (3, lambda: SoundSubject(TenTimesTheLoss)),
    (3, lambda: SoundSubject(LossSummed)),
    (3, lambda: SoundSubject(LargeWeights)),
    (4, lambda: SoundSubject(BiasAtZero)),
    (5, lambda: SoundSubject(DeadInput)),
    (5, lambda: SoundSubject(data=ShuffledLabels)),
    (6, lambda: SoundSubject(data=LabelsOffByOne)),
    (6, lambda: SoundSubject(DeadInput)),
    (7, lambda: SoundSubject(CutGradient)),
    (7, lambda: SoundSubject(DeadInput)),
    (8, lambda: SoundSubject(Idle)),
    (8, lambda: SoundSubject(CutGradient)),
    (9, lambda: SoundSubject(data=ShiftedIds)),
    (10, lambda: SoundSubject(Idle)),
    (11, lambda: SoundSubject(LeakingNorm)),
    (11, lambda: SoundSubject(MixedUp)),
    (12, lambda: SoundSubject(data=LastBatchDropped)),
    (13, lambda: SoundSubject(PaddingCounts)),
    (13, lambda: SoundSubject(MixedUp)),
    (14, lambda: SoundSubject(Bottleneck)),
    (14, lambda: SoundSubject(CutGradient)),
]


@pytest.mark.parametrize(
    ("number", "planted"), DEFECTS, ids=lambda each: str(each) if isinstance(each, int) else ""
)
def test_a_planted_defect_is_found(number: int, planted: Callable[[], Subject]) -> None:
    (finding,) = run_all(planted(), [number])
    assert finding.status == "failed", finding.found
    assert "Error" not in finding.found, "it fails by what it measured"
