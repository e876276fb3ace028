"""What a machine must have for the settings of a training; what it lacks is named before there is a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import trainlab
from trainlab.errors import UserError
from trainlab.training.config import CommonConfig, FineTuneConfig, TrainingConfig
from trainlab.training.trainer import Trainer


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a CPU alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


@pytest.fixture
def xla(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the package that a TPU needs."""
    (tmp_path / "torch_xla").mkdir()
    (tmp_path / "torch_xla" / "__init__.py").touch()
    bare.syspath_prepend(tmp_path)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Lightning's Trainer is given, which is not made."""
    options: dict[str, Any] = {}
    monkeypatch.setattr(lightning.Trainer, "__init__", lambda self, **each: options.update(each))
    return options


@pytest.mark.parametrize("kind", [TrainingConfig, FineTuneConfig])
@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        ("cuda", "accelerator=cuda: torch sees no GPU here"),
        ("mps", "accelerator=mps: torch sees no GPU of Apple's here"),
        ("tpu", r"accelerator=tpu: PyTorch needs torch_xla .* pip install 'torch_xla\[tpu\]'"),
    ],
)
def test_a_device_that_is_missing_is_named_with_a_way_out(
    kind: type[CommonConfig], accelerator: str, message: str, bare: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        kind.parse({"accelerator": accelerator}).check_machine()
    assert "accelerator=cpu" in str(refused.value)


def test_a_tpu_is_lightning_s_alone(xla: None, given: dict[str, Any]) -> None:
    config = TrainingConfig(accelerator="tpu", devices=4, precision="auto")
    config.check_machine()
    with trainlab.Run("tpu", config, monitor=False) as run:
        Trainer(run, config)
    assert (given["accelerator"], given["devices"], given["strategy"]) == ("tpu", 4, "auto")
    assert given["precision"] == "32-true"
    assert config.device == "cpu", "where the rest is computed"


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_precision_that_a_tpu_has_not_is_refused(precision: str, xla: None) -> None:
    with pytest.raises(UserError, match=f"precision={precision}: on a TPU use precision=32-true"):
        TrainingConfig.parse({"accelerator": "tpu", "precision": precision}).check_machine()


def test_apple_s_gpu_is_used_where_it_is(bare: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    bare.setattr(torch.backends.mps, "is_available", lambda: True)
    config = TrainingConfig(accelerator="mps", precision="16-mixed")
    config.check_machine()
    with trainlab.Run("mps", config, monitor=False) as run:
        Trainer(run, config)
    assert (given["accelerator"], given["deterministic"], config.device) == ("mps", False, "mps")


@pytest.mark.parametrize(("accelerator", "gpus"), [("cuda", 2), ("mps", 1)])
def test_more_devices_than_there_are_are_refused(
    accelerator: str, gpus: int, bare: pytest.MonkeyPatch
) -> None:
    bare.setattr(torch.cuda, "is_available", lambda: True)
    bare.setattr(torch.cuda, "device_count", lambda: 2)
    bare.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match=rf"devices=3: this machine has {gpus} GPU\(s\)"):
        TrainingConfig.parse({"accelerator": accelerator, "devices": 3}).check_machine()


def test_auto_is_the_gpu_where_there_is_one(bare: pytest.MonkeyPatch) -> None:
    assert TrainingConfig().device == "cpu"
    bare.setattr(torch.cuda, "is_available", lambda: True)
    assert TrainingConfig().device == "cuda"
