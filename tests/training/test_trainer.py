from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import trainlab
from trainlab.runs import checkpoint, scalars
from trainlab.training import Trainer, TrainingConfig, trainer
from trainlab.training.trainer import set_threads


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
    assert (curves.query("tag == 'train/samples_per_second'")["value"] > 0).all()
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
            plugins=[trainer.VerifiedCheckpoints()],
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


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminated_training_is_marked_interrupted(tmp_path: Path) -> None:
    lines = [
        "import sys; from pathlib import Path; import trainlab",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from test_trainer import terminate, train",
        f"with trainlab.Run('line', logs=Path({str(tmp_path)!r})) as run: train(run, terminate)",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 143, ended.stderr
    (record,) = tmp_path.glob("line/*/run.json")
    assert json.loads(record.read_text())["status"] == "interrupted"


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 1), (1.0, 1), (None, None)])
def test_torch_gets_as_many_threads_as_it_may_use_cpus(
    limit: float | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(trainer, "cpu_limit", lambda: limit)
    try:
        threads = set_threads()
        assert threads == torch.get_num_threads() == (expected or min(before, len(os.sched_getaffinity(0))))
    finally:
        torch.set_num_threads(before)
