"""N steps at once and k steps, a stop and the rest: the same weights, the same curves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import trainlab
from noisy_training import STEPS, curves, fit, settings
from trainlab.run import checkpoint


class KeepEach(Callback):
    """Copies each checkpoint to a folder as it was before validation and at the end of the epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "before-validation")

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "after-step")

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.keep(trainer, "after-step")

    def keep(self, trainer: Any, name: str) -> None:
        saved = trainer.run.checkpoints / f"step-{trainer.global_step:08d}.ckpt"
        if saved.exists():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            for each in (saved, checkpoint.digest_file(saved)):
                shutil.copy(each, self.folder / name)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Workers leave torch fewer threads, and sums of floats depend on how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module", params=[1.0, 2], ids=["validated each epoch", "validated every two steps"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict, dict]:
    """A training without a stop: its folder, final weights and options; copies of all its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    options = {"val_check_interval": request.param}
    with trainlab.Run("noisy", settings(), logs=folder) as run:
        done = fit(run, settings(), KeepEach(folder / "kept"), **options)
    assert done.global_step == STEPS
    return run.folder, done.lightning_module.state_dict(), options


def checkpoints(whole: tuple[Path, dict, dict]) -> list[Path]:
    return sorted(whole[0].parents[1].glob("kept/*/step-*.ckpt"))


def test_a_training_that_stopped_after_any_step_goes_on_as_if_it_had_not(
    whole: tuple[Path, dict, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, weights, options = whole
    expected = curves(folder)
    kept = checkpoints(whole)
    assert {path.parent.name for path in kept} == {"after-step", "before-validation"}
    assert len({path.name for path in kept}) == STEPS
    for path in kept:
        at = f"{path.parent.name}/{path.name}"
        copied = tmp_path / "noisy" / f"{path.parent.name}-{path.stem}"
        shutil.copytree(folder, copied)
        for each in (path, checkpoint.digest_file(path)):
            shutil.copy(each, copied / "checkpoints")
        chosen = copied / "checkpoints" / path.name
        workers = 2 if path.stem == "step-00000007" else 0  # nothing depends on them
        config = settings(num_workers=workers)
        with trainlab.Run("noisy", config, resume=chosen, logs=tmp_path) as run:
            done = fit(run, config, **options)
        assert done.global_step == STEPS, at
        assert f"resumed from step {int(path.stem[-8:])}: {chosen}" in capfd.readouterr().out
        for name, value in done.lightning_module.state_dict().items():
            assert torch.equal(value, weights[name]), f"{name} after {at}"
        pd.testing.assert_frame_equal(curves(copied), expected, check_exact=True, obj=at)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_training_on_a_gpu_that_stopped_in_an_epoch_goes_on_as_if_it_had_not(
    precision: str, tmp_path: Path
) -> None:
    config = settings(accelerator="cuda", precision=precision)
    with trainlab.Run("noisy", config, logs=tmp_path / "whole") as run:
        done = fit(run, config, KeepEach(tmp_path / "kept"))
    copied = tmp_path / "noisy" / "copied"
    shutil.copytree(run.folder, copied)
    chosen = copied / "checkpoints" / f"step-{STEPS // 2:08d}.ckpt"
    with trainlab.Run("noisy", config, resume=chosen, logs=tmp_path) as again:
        resumed = fit(again, config)
    assert resumed.strategy.root_device.type == "cuda"
    pd.testing.assert_frame_equal(curves(copied), curves(run.folder), check_exact=True)
    for name, value in resumed.lightning_module.state_dict().items():
        assert torch.equal(value.cpu(), done.lightning_module.state_dict()[name].cpu()), name
