from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

import trainlab
from trainlab.training import seed
from trainlab.training.config import TrainingConfig
from trainlab.training.seed import Choice, choose_precision, faster, precision_of
from trainlab.training.trainer import Trainer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[trainlab.Run]:
    """A run on a machine on which bfloat16 is three times as fast."""
    measured = {"32-true": 3000.0, "bf16-mixed": 1000.0}
    monkeypatch.setattr(seed, "choose_precision", lambda device: Choice("bf16-mixed", measured))
    with trainlab.Run("auto", AUTO) as found:
        yield found


AUTO = TrainingConfig(precision="auto", accelerator="cpu")


def test_both_precisions_are_timed_on_this_machine() -> None:
    choice = choose_precision("cpu")
    assert set(choice.milliseconds) == {"32-true", "bf16-mixed"}
    assert min(choice.milliseconds.values()) > 0
    assert choice.precision in choice.milliseconds


@pytest.mark.parametrize(("single", "chosen"), [(3.0, "bf16-mixed"), (1.1, "32-true"), (0.3, "32-true")])
def test_half_of_the_digits_are_given_away_for_speed_alone(single: float, chosen: str) -> None:
    assert faster({"32-true": single, "bf16-mixed": 1.0}) == chosen


def test_the_measurement_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    choose_precision("cpu")
    assert torch.equal(torch.rand(3), expected)


def test_the_choice_is_said_recorded_and_used(run: trainlab.Run, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(run, AUTO)
    assert trainer.precision == "bf16-mixed"
    said = "precision: bf16-mixed (a transformer's layers: 32-true 3000 ms, bf16-mixed 1000 ms)"
    assert said in capsys.readouterr().out
    recorded = json.loads((run.folder / "run.json").read_text())
    assert (recorded["config"]["precision"], recorded["precision"]) == ("auto", "bf16-mixed")


def test_a_run_that_goes_on_keeps_its_precision(
    run: trainlab.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    precision_of(run, AUTO)
    monkeypatch.setattr(seed, "choose_precision", None)  # another machine, which may come to another choice
    capsys.readouterr()
    assert precision_of(run, AUTO) == "bf16-mixed"
    assert not capsys.readouterr().out


def test_a_precision_that_was_asked_for_is_not_measured(
    run: trainlab.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "choose_precision", None)
    assert precision_of(run, TrainingConfig(precision="32-true")) == "32-true"


def test_processes_of_torchrun_measure_nothing(run: trainlab.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert precision_of(run, AUTO) == "32-true", "each would come to a choice of its own"
