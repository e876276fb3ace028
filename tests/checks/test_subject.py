"""Modules of other kinds than the sound one, and subjects that say little of them."""

from __future__ import annotations

import signal
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tiny_classifier import SoundData, SoundModel, SoundSubject
from trainlab.checks.harness import Finding
from trainlab.checks.run import run_all
from trainlab.checks.subject import Subject
from trainlab.errors import UserError


class Points(lightning.LightningDataModule):
    """Floats [4] and the sign of the first of them; two of the training's points come twice."""

    def __init__(self) -> None:
        super().__init__()
        points = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
        points[1], points[3] = points[0], points[2]
        self.points = TensorDataset(points, (points[:, 0] > 0).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.utils.data.Subset(self.points, range(90)), batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.utils.data.Subset(self.points, range(90, 120)), batch_size=16)


class Signs(lightning.LightningModule):
    """Needs its trainer, its logger, a warm-up and batch norm, as grown-up modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points)

    def training_step(self, batch: list[Tensor], index: int) -> dict[str, Tensor]:
        assert self.trainer.max_epochs
        self.logger.experiment.add_scalar("index", index, self.global_step)
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return {"loss": loss}

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10_000)
        return [optimizer], [{"scheduler": warm_up, "interval": "step"}]


@pytest.fixture(scope="module")
def plain() -> dict[int, Finding]:
    """What is found of a module and its data alone, with the number of classes."""
    found = run_all(Subject("signs", Signs, Points, classes=2, steps=60, overfit_steps=150))
    return {finding.number: finding for finding in found}


def test_a_classifier_gets_twelve_checks_by_itself(plain: dict[int, Finding]) -> None:
    skipped = {number: each.found for number, each in plain.items() if each.status == "skipped"}
    assert list(skipped) == [9, 14]
    assert "decode(batch)" in skipped[9]
    assert "smaller()" in skipped[14]
    failed = {number: each.found for number, each in plain.items() if each.status == "failed"}
    assert set(failed) <= {3, 4}, "a first loss of two scores hangs on the first weights"


def test_the_audit_counts_duplicates_and_classes(plain: dict[int, Finding]) -> None:
    assert "train: 90 items, 2 duplicates, 0 empty" in plain[1].found
    assert "validation: 30 items, 0 duplicates" in plain[1].found
    assert "in two splits: 0 (train and validation)" in plain[1].found


def test_batch_norm_in_training_is_told_and_no_failure(plain: dict[int, Finding]) -> None:
    assert plain[11].status == "passed"
    assert "in training mode the batch is mixed" in plain[11].found


class Neighbour(Signs):
    """Each output is made of the point before."""

    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points.roll(1, 0))


def test_outputs_of_another_input_are_a_leak() -> None:
    (finding,) = run_all(Subject("rolled", Neighbour, Points, classes=2), [11])
    assert finding.status == "failed"
    assert "output 0 from inputs [7]" in finding.found


class Pictures(Points):
    """Bytes in place of floats."""

    def __init__(self) -> None:
        super().__init__()
        points, labels = self.points.tensors
        self.points = TensorDataset((128 + 40 * points).to(torch.uint8), labels)


class Scaled(Signs):
    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points / 255)


class ScaledNeighbour(Neighbour):
    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points / 255)


@pytest.mark.parametrize(("module", "status"), [(Scaled, "passed"), (ScaledNeighbour, "failed")])
def test_bytes_are_followed_as_floats_are(module: type[Signs], status: str) -> None:
    (finding,) = run_all(Subject("bytes", module, Pictures, classes=2), [11])
    assert finding.status == status, finding.found


class Positions(SoundModel):
    """Adds a vector to each word for its place, which all examples share."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.places = nn.Embedding(8, 16)

    def pooled(self, ids: Tensor) -> Tensor:
        return (self.words(ids) + self.places(torch.arange(ids.shape[1]))).mean(1)


def test_an_embedding_of_positions_is_no_leak() -> None:
    (finding,) = run_all(SoundSubject(Positions), [11])
    assert finding.status == "passed", finding.found


class Numbers(lightning.LightningDataModule):
    """Batches that are no pairs."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.linspace(-1, 1, 20)[:, None], batch_size=4)


class Line(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.layer(batch) - 2 * batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.3)


def test_what_a_subject_does_not_say_is_skipped_by_name_and_never_passed() -> None:
    findings = {each.number: each for each in run_all(Subject("line", Line, Numbers))}
    assert {number for number, each in findings.items() if each.status != "skipped"} == {2, 7, 8}
    assert all("the subject does not give" in findings[number].found for number in (1, 3, 4, 5, 6, 9, 10))
    assert "classes, margin or initial_loss()" in findings[3].found
    assert "a val_dataloader" in findings[12].found
    assert "predictions not compared" in findings[7].found
    assert findings[7].status == "passed"


class Broken(SoundModel):
    def training_step(self, batch: list[Tensor]) -> Tensor:
        raise ZeroDivisionError("no such luck")


def test_a_check_that_raises_has_failed_and_the_others_go_on() -> None:
    findings = run_all(SoundSubject(Broken), [1, 7, 9])
    assert [each.status for each in findings] == ["passed", "failed", "passed"]
    assert findings[1].found == "ZeroDivisionError: no such luck"


class Forgetful(SoundModel):
    def training_step(self, batch: list[Tensor]) -> Any:
        return None


def test_a_training_step_without_a_loss_is_told() -> None:
    (finding,) = run_all(SoundSubject(Forgetful), [7])
    assert finding.status == "skipped"
    assert "a training_step that returns the loss" in finding.found


class Interrupted(SoundModel):
    def training_step(self, batch: list[Tensor]) -> Tensor:
        raise KeyboardInterrupt


def test_an_interruption_ends_it_as_what_it_is() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_all(SoundSubject(Interrupted), [7])
    assert signal.getsignal(signal.SIGINT) is before


class Nowhere(SoundData):
    def prepare_data(self) -> None:
        raise UserError("nowhere.tsv does not exist.")


def test_data_that_cannot_be_read_ends_it_with_a_sentence() -> None:
    with pytest.raises(UserError, match="nowhere"):
        run_all(SoundSubject(data=Nowhere), [1])


def test_a_fact_of_another_name_is_refused() -> None:
    with pytest.raises(TypeError, match="clases: no such fact"):
        Subject("mine", SoundModel, SoundData, clases=3)


def test_random_states_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_all(SoundSubject(), [2, 12])
    assert torch.equal(torch.rand(3), expected)


def test_each_finding_is_told_at_once_and_in_order() -> None:
    told: list[Finding] = []
    assert run_all(SoundSubject(), [12, 1], tell=told.append) == told
    assert [each.number for each in told] == [1, 12]
