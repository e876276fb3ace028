"""The Transformers Trainer in a run: its tags, its files, and nothing else."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction, TrainerCallback

import trainlab
from full_disk import largest_file
from noisy_tuning import STEPS, Texts, model, settings, tune, tuner
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.runs import scalars
from trainlab.training.finetuning import FineTuner


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FineTuner]:
    """A training that is cut off from the network."""
    config = settings(keep=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it phones home"))
        with trainlab.Run("tuned", config, logs=tmp_path_factory.mktemp("logs"), monitor=False) as run:
            trained = tune(run, config)
            trained.evaluate(Texts(10, seed=3), metric_key_prefix="test")
    return trained


def record(tuned: FineTuner) -> dict[str, Any]:
    return json.loads((tuned.run.folder / "run.json").read_text())


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_it_logs_stands_under_the_tags_of_every_training(done: FineTuner) -> None:
    points = scalars(done.run.folder)
    evaluated = [2, 5, 8, 9]  # after so many steps, counted from 0, as with Lightning
    for tag in ("train/loss", "train/lr", "train/grad_norm", "val/loss", "val/accuracy", "val/noise"):
        assert points.query("tag == @tag")["step"].tolist() == evaluated, tag
    for tag in ("vitals/samples_per_second", "vitals/step_seconds", "vitals/data_wait_share"):
        assert (points.query("tag == @tag")["value"] > 0).all(), tag
    rates = points.query("tag == 'train/lr'")["value"].tolist()
    assert rates == pytest.approx([0.01, 0.00625, 0.0025, 0.00125])
    assert points.query("tag == 'test/loss'")["step"].tolist() == [9]
    known = {tag.partition("/")[0] for tag in points["tag"]}
    assert known == {"train", "val", "test", "vitals"}
    assert not points["tag"].str.contains("runtime|flos|epoch|steps_per_second").any()


def test_the_folder_holds_what_each_runs_does(done: FineTuner) -> None:
    checkpoints = ["best.ckpt", "last.ckpt", "step-00000005.ckpt", "step-00000010.ckpt"]
    expected = {f"checkpoints/{name}{end}" for name in checkpoints for end in ("", ".sha256")}
    found = {name for name in names(done.run.folder) if not name.startswith("events.out.tfevents")}
    assert found - {".lock"} == expected | {"run.json"}
    for name in checkpoints:
        checkpoint.check(done.run.checkpoints / name)
    assert record(done)["status"] == "finished"
    planned = record(done)["planned"]
    assert (planned["steps"], planned["epochs"], planned["step"]) == (STEPS, done.config.epochs, 0)


def test_the_last_checkpoint_holds_all_that_a_resume_needs(done: FineTuner) -> None:
    last = checkpoint.load(done.run.checkpoints / "last.ckpt")
    assert last["global_step"] == last["trainer_state"]["global_step"] == STEPS
    assert len(last["optimizer_states"]) == len(last["lr_schedulers"]) == 1
    assert {"python", "numpy", "torch", "cuda"} == set(last["trainlab"]["random"])


def test_the_best_checkpoint_builds_the_model_again(done: FineTuner) -> None:
    assert done.best_checkpoint == done.run.checkpoints / "best.ckpt"
    best = checkpoint.load(done.best_checkpoint)
    assert "optimizer_states" not in best
    built = BertForSequenceClassification(BertConfig(**best["hyper_parameters"]["config"]))
    built.load_state_dict(best["state_dict"])
    losses = scalars(done.run.folder).query("tag == 'val/loss'")
    told = record(done)["best_checkpoint"]
    assert told["path"] == "checkpoints/best.ckpt"
    assert told["monitor"] == "val/loss"
    assert told["value"] == pytest.approx(losses["value"].min())
    assert told["step"] == best["global_step"] == 1 + losses.loc[losses["value"].idxmin(), "step"]


class Score(TrainerCallback):
    """Measures what it is told, evaluation by evaluation."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def __call__(self, _: EvalPrediction) -> dict[str, float]:
        return {"accuracy": next(self.values)}


@pytest.mark.parametrize(
    ("scores", "step"), [((0.5, 0.9, 0.7, 0.9), 6), ((float("nan"), float("nan"), 0.1, float("nan")), 9)]
)
def test_the_best_is_chosen_by_the_metric_that_is_asked_for(
    scores: tuple[float, ...], step: int, tmp_path: Path
) -> None:
    config = settings(metric_for_best="val/accuracy")
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tuned = tune(run, config, compute_metrics=Score(*scores))
    told = record(tuned)["best_checkpoint"]
    assert (told["monitor"], told["step"]) == ("val/accuracy", step)
    assert checkpoint.load(run.checkpoints / "best.ckpt")["global_step"] == step


@pytest.mark.parametrize(
    ("said", "step"),
    [({"greater_is_better": True}, 6), ({"greater_is_better": "false"}, 3), ({"mode": "max"}, 6)],
)
def test_transformers_own_names_choose_the_best_too(said: dict[str, Any], step: int, tmp_path: Path) -> None:
    class Skill(Score):
        def __call__(self, found: EvalPrediction) -> dict[str, float]:
            return {"skill": super().__call__(found)["accuracy"]}

    values = settings().model_dump(exclude={"metric_for_best", "mode"})
    config = type(settings()).parse(values | {"metric_for_best_model": "eval_skill"} | said)
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tuned = tune(run, config, compute_metrics=Skill(0.5, 0.9, 0.7, 0.8))
    told = record(tuned)["best_checkpoint"]
    assert (told["monitor"], told["step"]) == ("val/skill", step)
    assert record(tuned)["directions"]["val/skill"] == {6: "max", 3: "min"}[step]


def test_no_fine_tuning_begins_whose_best_weights_would_be_chosen_by_a_guess(tmp_path: Path) -> None:
    config = settings(metric_for_best="val/skill")
    with (
        pytest.raises(UserError, match=r"metric_for_best=val/skill: .* nobody has said"),
        trainlab.Run("tuned", config, logs=tmp_path) as run,
    ):
        tune(run, config)
    assert not run.checkpoints.exists()


def test_a_metric_that_nobody_measures_is_warned_about_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(metric_for_best="val/acuracy", mode="max")
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        assert tune(run, config).best_checkpoint is None
    said = capsys.readouterr().out
    assert said.count("nothing of that name was logged") == 1
    assert "Did you mean 'val/accuracy'?" in said


def test_it_shows_a_bar_an_epoch_and_is_quiet_otherwise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = settings(num_workers="auto")
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tune(run, config)
    shown = capfd.readouterr()
    assert "epoch 2/2 100%" in shown.out
    assert "5/5 batches" in shown.out
    assert "val/accuracy" in shown.out
    assert "workers: 0" in shown.out
    assert "train_runtime" not in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"checkpoint_every": "4"}, [4, 5, 8, 10]),
        ({"checkpoint_every": "4", "keep": 1}, [10]),
        ({"every_n_epochs": 9}, [10]),
        ({"checkpoint_every": "0.0001s", "every_n_epochs": 9, "keep": 3}, [8, 9, 10]),
    ],
)
def test_full_states_are_kept_by_time_steps_and_epochs(
    changes: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    config = settings(**changes)
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tune(run, config)
    found = sorted(path.name for path in run.checkpoints.glob("step-*.ckpt"))
    assert found == [f"step-{step:08d}.ckpt" for step in steps]
    assert checkpoint.load(run.checkpoints / "last.ckpt")["global_step"] == steps[-1]


def test_fast_dev_run_goes_through_all_of_it_and_leaves_nothing(tmp_path: Path) -> None:
    config = settings(fast_dev_run=2)
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tuned = tune(run, config)
    assert tuned.state.global_step == 2
    assert tuned.best_checkpoint is None
    assert not list(run.folder.rglob("*.ckpt"))
    assert scalars(run.folder).empty


def test_shorter_epochs_evaluations_and_tests_can_be_asked_for(tmp_path: Path) -> None:
    config = settings(limit_train_batches=3, limit_val_batches=0.5, eval_batch_size=5, limit_test_batches=1)
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        tuned = tune(run, config)
        tested = tuned.predict(Texts(12, seed=3))
    assert tuned.state.global_step == 6
    assert len(tuned.get_eval_dataloader()) == 1
    assert len(tested.predictions) == 5


def test_bfloat16_changes_the_numbers_and_is_gone_on_with(tmp_path: Path) -> None:
    config = settings(precision="bf16-mixed", epochs=1)
    with trainlab.Run("tuned", config, logs=tmp_path) as run:
        losses = tune(run, config).state.log_history[0]["loss"]
    with trainlab.Run("tuned", settings(), logs=tmp_path) as other:
        assert tune(other, settings()).state.log_history[0]["loss"] != losses
    more = settings(precision="bf16-mixed")
    with trainlab.Run("tuned", more, resume=run.folder, logs=tmp_path) as again:
        assert tune(again, more).state.global_step == STEPS


class FillDisk(TrainerCallback):
    """Lets no file grow beyond what a record needs, once some steps are made."""

    def on_step_end(self, args: Any, state: transformers.TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 4:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    large, config = model(), settings(checkpoint_every="3")
    large.ballast = torch.nn.Parameter(torch.zeros(100_000))
    unlimited, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(UserError, match=r"\.ckpt can't be written: .*too large"),
        largest_file(unlimited),  # which puts back what FillDisk changes
        trainlab.Run("tuned", config, logs=tmp_path) as run,
    ):
        tune(run, config, FillDisk(), model=large)
    known = json.loads((run.folder / "run.json").read_text())
    assert known["status"] == "failed"
    assert "can't be written" in known["reason"]
    newest = checkpoint.newest(run.folder)
    assert newest == run.checkpoints / "step-00000003.ckpt"
    assert not list(run.folder.rglob("*.tmp"))


def test_hyperparameters_that_no_checkpoint_can_hold_are_refused_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"keeps backbone, a PosixPath"),
        trainlab.Run("tuned", settings(), logs=tmp_path) as run,
    ):
        tuner(run, settings(), hyper_parameters={"backbone": tmp_path})
