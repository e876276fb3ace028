"""What is left of a training's checkpoints: it fails, the disk is full, a file is damaged, a signal comes."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import trainlab
from noisy_training import STEPS, Data, Noisy, curves, fit, settings
from scored_training import Scored, train
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.signals import Deferral, Terminated
from trainlab.training import checkpoints
from trainlab.training.checkpoints import FullState
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer


class Unsaveable(Scored):
    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.save_hyperparameters("loss")


@pytest.mark.parametrize("value", [Path("x"), torch.nn.MSELoss(), {"nested": [print]}])
def test_hyperparameters_that_no_checkpoint_can_hold_are_refused_at_once(value: Any, tmp_path: Path) -> None:
    module = Unsaveable(value)
    with pytest.raises(UserError, match=r"Unsaveable keeps loss, .*ignore=\['loss'\]"):
        train(tmp_path, module)
    assert not list(tmp_path.rglob("*.ckpt"))


class Fail(Callback):
    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise ZeroDivisionError("no such luck")


def test_a_training_that_fails_saves_nothing_anew(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, Scored(), Fail(), checkpoint_every="1")
    assert sorted(path.name for path in tmp_path.rglob("step-*.ckpt")) == [
        "step-00000001.ckpt",
        "step-00000002.ckpt",
    ]


class FillDisk(Callback):
    """Lets no file grow beyond what a record needs, once some steps are made."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))


@contextmanager
def limits_restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    module = Scored()
    module.ballast = torch.nn.Parameter(torch.zeros(100_000))
    with (
        pytest.raises(UserError, match=r"\.ckpt can't be written: .*too large"),
        limits_restored(),
    ):
        train(tmp_path, module, FillDisk())
    (folder,) = (tmp_path / "kept").iterdir()
    known = json.loads((folder / "run.json").read_text())
    assert known["status"] == "failed"
    assert "can't be written" in known["reason"]
    newest = checkpoint.newest(folder)
    assert newest == folder / "checkpoints" / "step-00000002.ckpt"
    assert checkpoint.load(newest)["global_step"] == 2
    assert not list(folder.rglob("*.tmp"))


def test_where_the_newest_is_damaged_the_one_before_is_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(epochs=2, keep=2)
    with trainlab.Run("noisy", config, logs=tmp_path) as run:
        done = fit(run, config)
    expected, weights = curves(run.folder), done.lightning_module.state_dict()
    newest = run.checkpoints / "step-00000010.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.unlink()  # last.ckpt is another name of it
    newest.write_bytes(content)
    (run.checkpoints / "last.ckpt").unlink()
    with trainlab.Run("noisy", config, resume="last", logs=tmp_path) as run:
        assert run.checkpoint == run.checkpoints / "step-00000009.ckpt"
        done = fit(run, config)
    assert f"warning: {newest} is damaged" in capsys.readouterr().out
    assert all(
        torch.equal(value, weights[name]) for name, value in done.lightning_module.state_dict().items()
    )
    assert curves(run.folder).equals(expected)
    assert [path.name for path in checkpoint.full_states(run.folder)] == [newest.name, "step-00000009.ckpt"]
    checkpoint.check(newest)


def test_a_finished_run_goes_on_with_more_epochs_but_not_with_fewer(tmp_path: Path) -> None:
    for epochs in (2, 3):
        config = settings(epochs=epochs)
        with trainlab.Run("noisy", config, resume="last" if epochs == 3 else "", logs=tmp_path) as run:
            done = fit(run, config)
    assert done.global_step == STEPS
    whole = settings()
    with trainlab.Run("noisy", whole, logs=tmp_path) as other:
        expected = fit(other, whole).lightning_module.state_dict()
    found = done.lightning_module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    fewer = settings(epochs=2)
    with (
        pytest.raises(UserError, match="epochs=2: this run has trained 3 epochs already"),
        trainlab.Run("noisy", fewer, resume=run.folder, logs=tmp_path) as run,
    ):
        Trainer(run, fewer).fit(Noisy(), Data())


class Stopped:
    """A Trainer of so many processes that gets SIGTERM while these agree on whether to save."""

    fast_dev_run, is_global_zero = 0, True

    def __init__(self, world_size: int) -> None:
        self.global_step, self.world_size = 1, world_size
        self.strategy = self._checkpoint_connector = self
        self.deferral = Deferral(patience=60)

    def signal(self) -> None:
        if self.deferral.requested is None:
            self.deferral.handle(signal.SIGTERM)

    def gather(self, said: list[Any], mine: Any) -> None:
        self.signal()
        said[:] = [mine] * self.world_size

    def dump_checkpoint(self, weights_only: bool) -> dict[str, Any]:
        return {"global_step": self.global_step}

    def save_checkpoint(self, saved: dict[str, Any], path: Path) -> None:
        checkpoint.save(saved, path)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_signal_at_any_moment_stops_the_training_with_a_checkpoint(
    world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = Stopped(world_size)
    with trainlab.Run("interrupted", TrainingConfig(), logs=tmp_path, monitor=False) as run:
        states = FullState(run, TrainingConfig())
        states.deferral = trainer.deferral
        monkeypatch.setattr(torch.distributed, "all_gather_object", trainer.gather)
        if world_size == 1:  # it arrives when the clock is looked at
            clock = SimpleNamespace(monotonic=lambda: trainer.signal() or time.monotonic())
            monkeypatch.setattr(checkpoints, "time", clock)
        with pytest.raises(Terminated):
            for trainer.global_step in (1, 2, 3):
                states.after_step(trainer, long_rest=False)
    assert [path.name for path in checkpoint.full_states(run.folder)] == [
        f"step-{trainer.global_step:08d}.ckpt"
    ]
