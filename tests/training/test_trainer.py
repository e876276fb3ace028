from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab import system
from trainlab.run import checkpoint
from trainlab.runs.frames import scalars
from trainlab.training.checkpoints import VerifiedCheckpoints
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer
from trainlab.training.workers import set_threads


class Line(lightning.LightningModule):
    """y = 2x, to be found."""

    def __init__(self, at_step: object = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="at_step")
        self.layer = torch.nn.Linear(1, 1)
        self.at_step = at_step

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        if self.at_step and self.global_step == 3:
            self.at_step()
        (x,) = batch
        loss = (self.layer(x) - 2 * x).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        (x,) = batch
        self.log("val/loss", (self.layer(x) - 2 * x).square().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(lightning.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.linspace(-1, 1, 20)[:, None]), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.linspace(-1, 1, 5)[:, None]), batch_size=5)


def train(run: trainlab.Run, at_step: object = None, seed: int = 0) -> lightning.Trainer:
    lightning.seed_everything(seed, verbose=False)
    done = Trainer(run, TrainingConfig(accelerator="cpu", seed=seed))
    done.fit(Line(at_step), Points())
    return done


def test_curves_and_checkpoints_lie_in_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        done = train(run)
    curves = scalars(run.folder)
    assert curves.query("tag == 'train/loss'")["step"].tolist() == list(range(15))
    assert curves.query("tag == 'val/loss'")["step"].tolist() == [4, 9, 14]
    assert curves.query("tag == 'train/lr'")["value"].tolist() == pytest.approx([0.1] * 15)
    assert (curves.query("tag == 'vitals/samples_per_second'")["value"] > 0).all()
    assert "epoch" not in set(curves["tag"])
    best = checkpoint.load(run.folder / "checkpoints" / "best.ckpt")
    last = checkpoint.load(run.folder / "checkpoints" / "last.ckpt")
    assert "optimizer_states" not in best
    assert len(last["optimizer_states"]) == 1
    assert last["global_step"] == done.global_step == 15
    shown = capfd.readouterr()
    assert "epoch 3/3 100%" in shown.out
    assert "5/5 batches" in shown.out
    assert "val/loss" in shown.out
    assert "GPU available" not in shown.err + shown.out
    assert list(tmp_path.iterdir()) == [tmp_path / "line"]


def test_the_best_checkpoint_is_of_the_lowest_loss(tmp_path: Path) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        Trainer(run, TrainingConfig(accelerator="cpu")).fit(Worsening(), Points())
    assert checkpoint.load(run.folder / "checkpoints" / "best.ckpt")["epoch"] == 0
    assert checkpoint.load(run.folder / "checkpoints" / "last.ckpt")["epoch"] == 3


class Worsening(Line):
    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val/loss", float(self.current_epoch))


def test_one_seed_gives_one_curve(tmp_path: Path) -> None:
    values = []
    for seed in (0, 0, 1):
        with trainlab.Run("line", logs=tmp_path) as run:
            train(run, seed=seed)
        values.append(scalars(run.folder).query("tag == 'train/loss'")["value"].tolist())
    assert values[0] == values[1] != values[2]


def test_a_resumed_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        done = train(run)
        last = run.folder / "checkpoints" / "last.ckpt"
        fresh = Line()
        resumed = lightning.Trainer(
            max_epochs=3,
            logger=False,
            plugins=[VerifiedCheckpoints()],
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        resumed.fit(fresh, datamodule=Points(), ckpt_path=str(last), weights_only=True)
    assert torch.equal(fresh.layer.weight, done.lightning_module.layer.weight)
    assert resumed.global_step == 15


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_is_one_to_the_run_and_to_the_caller(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), trainlab.Run("line", logs=tmp_path) as run:
        train(run, interrupt)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def fail() -> None:
    raise ValueError("no such luck")


def test_an_error_goes_up_and_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such luck"), trainlab.Run("line", logs=tmp_path) as run:
        train(run, fail)
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("failed", "ValueError: no such luck")


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 1), (1.0, 1), (None, None)])
def test_torch_gets_as_many_threads_as_it_may_use_cpus(
    limit: float | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(system, "cpu_limit", lambda: limit)
    try:
        threads = set_threads()
        assert threads == torch.get_num_threads() == (expected or min(before, len(os.sched_getaffinity(0))))
    finally:
        torch.set_num_threads(before)


class Measured(Line):
    def test_step(self, batch: list[torch.Tensor]) -> None:
        self.log("test/loss", self.training_step(batch, 0))


def fit(run: trainlab.Run, module: Line, data: object, **changes: object) -> Trainer:
    done = Trainer(run, TrainingConfig(accelerator="cpu", num_workers=0, **changes))
    done.fit(module, data)
    return done


def test_a_fast_development_run_does_a_little_of_all_and_writes_nothing(tmp_path: Path) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        done = fit(run, Measured(), Points(), fast_dev_run=2)
        done.test(Measured(), Points().val_dataloader())
    assert done.global_step == 2
    assert done.best_checkpoint is None
    assert not list(run.folder.rglob("*.ckpt"))
    assert scalars(run.folder).empty


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"limit_train_batches": 3}, 3),
        ({"limit_train_batches": 0.4}, 2),
        ({"overfit_batches": 1}, 1),
        ({"limit_val_batches": 0}, 5),
    ],
)
def test_an_epoch_can_be_shortened(changes: dict, steps: int, tmp_path: Path) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        done = fit(run, Measured(), Points(), epochs=2, **changes)
        (measured,) = done.test(Measured(), Points().val_dataloader(), verbose=False)
    assert done.global_step == 2 * steps
    curves = scalars(run.folder)
    assert len(curves.query("tag == 'val/loss'")) == (0 if "limit_val_batches" in changes else 2)
    assert curves.query("tag == 'test/loss'")["step"].tolist() == [2 * steps]
    assert measured["test/loss"] > 0


def test_overfitting_sees_the_same_batch_in_each_epoch(tmp_path: Path) -> None:
    seen: list[list[float]] = []

    class Seeing(Line):
        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            seen.append(batch[0].flatten().tolist())
            return super().training_step(batch, index)

    with trainlab.Run("line", logs=tmp_path) as run:
        fit(run, Seeing(), Points(), overfit_batches=1)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


class Stream(torch.utils.data.IterableDataset):
    """Items without a number of them."""

    def __iter__(self) -> object:
        return iter(torch.linspace(-1, 1, 8)[:, None])


def test_loaders_without_length_or_batch_size_train_too(tmp_path: Path) -> None:
    whole_batches = DataLoader([[torch.ones(3, 1)], [torch.zeros(2, 1)]], batch_size=None)
    stream = DataLoader(Stream(), batch_size=4, collate_fn=lambda items: [torch.stack(items)])
    for loader in (whole_batches, stream):
        with trainlab.Run("line", logs=tmp_path) as run:
            config = TrainingConfig(accelerator="cpu", epochs=2, num_workers=0)
            trainer = Trainer(run, config, log_every_n_steps=2)
            trainer.fit(Line(), loader)
        assert trainer.global_step == 4
        tags = set(scalars(run.folder)["tag"])
        assert {"train/loss", "train/lr", "vitals/step_seconds", "vitals/data_wait_share"} <= tags
        assert ("vitals/samples_per_second" in tags) == (loader is stream)


def test_waiting_for_data_is_told_from_computing(tmp_path: Path) -> None:
    class Slow(TensorDataset):
        def __getitem__(self, row: int) -> tuple[torch.Tensor, ...]:
            time.sleep(0.01)
            return super().__getitem__(row)

    loader = DataLoader(Slow(torch.ones(8, 1)), batch_size=4)
    with trainlab.Run("line", logs=tmp_path) as run:
        trainer = Trainer(run, TrainingConfig(accelerator="cpu", epochs=1, num_workers=0))
        trainer.fit(Line(), loader)
    speed = scalars(run.folder).set_index("tag")["value"]
    assert (speed["vitals/step_seconds"] > 0.04).all()
    assert speed["vitals/data_wait_share"].between(0.3, 1).all()


def test_the_best_checkpoint_can_be_tested(tmp_path: Path) -> None:
    with trainlab.Run("line", logs=tmp_path) as run:
        done = fit(run, Measured(), Points())
        (measured,) = done.test(Measured(), Points().val_dataloader(), ckpt_path="best", verbose=False)
        (validated,) = done.validate(Measured(), Points(), ckpt_path="best", verbose=False)
    assert measured["test/loss"] == validated["val/loss"]
    assert json.loads((run.folder / "run.json").read_text())["best_checkpoint"]["value"] == pytest.approx(
        validated["val/loss"]
    )


def test_the_record_says_how_far_the_training_is_to_go(tmp_path: Path) -> None:
    config = TrainingConfig(accelerator="cpu", num_workers=0, epochs=2)
    stream = DataLoader(Stream(), batch_size=4, collate_fn=lambda items: [torch.stack(items)])
    cases = ((stream, {}, (None, 2)), (Points(), {}, (10, 2)), (Points(), {"max_steps": 7}, (7, None)))
    for data, options, expected in cases:
        with trainlab.Run("line", config, logs=tmp_path) as run:
            Trainer(run, config, **options).fit(Line(), data)
        planned = json.loads((run.folder / "run.json").read_text())["planned"]
        assert (planned["steps"], planned["epochs"]) == expected
        assert planned["step"] == 0


def test_other_precision_and_a_limit_in_steps_work_and_resume(tmp_path: Path) -> None:
    config = TrainingConfig(accelerator="cpu", precision="bf16-mixed", num_workers=0, epochs=9)
    for most in (5, 12):  # the first at the end of an epoch
        with trainlab.Run("line", config, resume="last" if most == 12 else "", logs=tmp_path) as run:
            done = Trainer(run, config, max_steps=most)
            done.fit(Line(), Points())
        assert done.global_step == most
    assert scalars(run.folder).query("tag == 'train/loss'")["step"].tolist() == list(range(12))
