"""What a training keeps on the disk: which files, and how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

import trainlab
from noisy_training import curves, fit, settings
from scored_training import Scored, loader, train
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.metrics import Direction
from trainlab.runs import listing
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer


def names(trainer: Trainer, pattern: str = "*.ckpt") -> list[str]:
    found = sorted(trainer.run.checkpoints.glob(pattern))
    for path in found:
        checkpoint.check(path)
    return [path.name for path in found]


def record(trainer: Trainer) -> dict[str, Any]:
    return json.loads((trainer.run.folder / "run.json").read_text())


def record_of(logs: Path) -> dict[str, Any]:
    (path,) = logs.glob("kept/*/run.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [4, 6]),
        ({"keep": 99}, [2, 4, 6]),
        ({"keep": 99, "every_n_epochs": 2}, [4, 6]),
        ({"keep": 99, "every_n_epochs": 9}, [6]),
        ({"keep": 99, "every_n_epochs": 9, "checkpoint_every": "3"}, [3, 6]),
        ({"keep": 99, "every_n_epochs": 9, "checkpoint_every": "0.0001s"}, [1, 2, 3, 4, 5, 6]),
        ({"keep": 1, "checkpoint_every": "1"}, [6]),
    ],
)
def test_full_states_are_kept_by_time_steps_and_epochs(
    changes: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    done = train(tmp_path, Scored(), **changes)
    assert names(done, "step-*.ckpt") == [f"step-{step:08d}.ckpt" for step in steps]
    last = checkpoint.load(done.run.checkpoints / "last.ckpt")
    assert last["global_step"] == steps[-1]
    assert len(last["optimizer_states"]) == 1


@pytest.mark.parametrize(("tag", "step"), [("val/loss", 4), ("val/accuracy", 2)])
def test_the_best_checkpoint_is_named_with_its_value(tag: str, step: int, tmp_path: Path) -> None:
    done = train(tmp_path, Scored(tag), monitor=tag)
    assert done.best_checkpoint == done.run.checkpoints / "best.ckpt"
    value = {4: 1.0, 2: 3.0}[step]
    assert record(done)["best_checkpoint"] == {
        "path": "checkpoints/best.ckpt",
        "monitor": tag,
        "value": value,
        "step": step,
    }
    best = checkpoint.load(done.best_checkpoint)
    assert best["global_step"] == step
    assert "optimizer_states" not in best


@pytest.mark.parametrize(
    ("top", "kept", "best"),
    [
        (2, ["best-step-00000004.ckpt", "best-step-00000006.ckpt"], 4),
        (-1, [f"best-step-0000000{step}.ckpt" for step in (2, 4, 6)], 4),
        (0, [], None),
    ],
)
def test_so_many_of_the_best_are_kept(top: int, kept: list[str], best: int | None, tmp_path: Path) -> None:
    done = train(tmp_path, Scored(), save_top_k=top)
    assert names(done, "best-*.ckpt") == kept
    if best is None:
        assert done.best_checkpoint is None
    else:
        assert done.best_checkpoint is not None
        assert checkpoint.load(done.best_checkpoint)["global_step"] == best


@pytest.mark.parametrize("tag", ["val/wer", "val/mae", "val_rmse", "val/ppl", "val/fid", "val/kl", "val/NLL"])
def test_the_lowest_is_best_of_well_known_errors(tag: str, tmp_path: Path) -> None:
    done = train(tmp_path, Scored(tag, scores=(0.9, 0.5, 0.2)), monitor=tag)
    assert record(done)["best_checkpoint"]["step"] == 6
    assert record(done)["best"][tag] == {"value": pytest.approx(0.2), "step": 5}
    assert record(done)["directions"][tag] == "min"


@pytest.mark.parametrize("name", ["val/lossless_ratio", "val/errors_found", "val/seconds_saved", "score"])
def test_no_training_begins_whose_best_weights_would_be_chosen_by_a_guess(name: str, tmp_path: Path) -> None:
    said = f"monitor={name}: .* it is unknown whether less or more of it is better"
    with pytest.raises(UserError, match=said) as error:
        train(tmp_path, Scored(name), monitor=name)
    assert "mode=min or mode=max" in str(error.value)
    assert f"metrics={{'{name}': 'min'}}" in str(error.value)
    assert not list(tmp_path.glob("kept/*/checkpoints/*"))
    assert record_of(tmp_path)["status"] == "failed"
    for kept in ({"mode": "max"}, {"save_top_k": 0}):
        train(tmp_path, Scored(name), monitor=name, **kept)


@pytest.mark.parametrize(("mode", "step"), [("min", 4), ("max", 2)])
def test_the_direction_of_a_metric_is_what_was_said(mode: Any, step: int, tmp_path: Path) -> None:
    done = train(tmp_path, Scored("val/score"), monitor="val/score", mode=mode)
    assert record(done)["best_checkpoint"]["step"] == step
    assert record(done)["directions"]["val/score"] == mode
    (row,) = listing.rows(tmp_path)
    assert row.best["val/score"] == done.run._summary.best["val/score"]["value"] == {4: 1.0, 2: 3.0}[step]


def test_a_run_may_say_the_direction_and_a_resume_keeps_it(tmp_path: Path) -> None:
    config = TrainingConfig(accelerator="cpu", num_workers=0, monitor="val/score", epochs=2)
    metrics: dict[str, Direction] = {"val/score": "min"}
    with trainlab.Run("kept", config, logs=tmp_path, metrics=metrics) as run:
        Trainer(run, config).fit(Scored("val/score"), loader(), loader())
    assert record_of(tmp_path)["metrics"] == ["val/score"]
    longer = config.model_copy(update={"epochs": 3})
    with trainlab.Run("kept", longer, logs=tmp_path, resume=run.folder) as again:
        Trainer(again, longer).fit(Scored("val/score", scores=(3.0, 1.0, 0.5)), loader(), loader())
    assert record_of(tmp_path)["best_checkpoint"]["step"] == 6
    assert record_of(tmp_path)["best"]["val/score"] == {"value": 0.5, "step": 5}
    with (
        pytest.raises(UserError, match="'max' is better now, and in the run it is 'min'"),
        trainlab.Run("kept", longer, logs=tmp_path, resume=run.folder, metrics={"val/score": "max"}),
    ):
        pass
    turned = longer.model_copy(update={"mode": "max"})
    with (
        pytest.raises(UserError, match="'max' is better now, and in the run it is 'min'"),
        trainlab.Run("kept", turned, logs=tmp_path, resume=run.folder) as third,
    ):
        Trainer(third, turned)


@pytest.mark.parametrize("tag", ["val_loss", "valid_loss", "eval/loss"])
def test_the_loss_of_a_module_that_names_it_otherwise_is_monitored_and_shown(
    tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(tmp_path, Scored(tag))
    assert done.best_checkpoint is not None
    assert record(done)["best_checkpoint"]["step"] == 4
    assert record(done)["best_checkpoint"]["monitor"] == tag
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if tag in line] == [
        f"  {tag} {score}" for score in ("3.000", "1.000", "2.000")
    ]
    assert "warning" not in said


def test_a_module_that_measures_nothing_prints_no_empty_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainingConfig(accelerator="cpu", num_workers=0, epochs=2)
    with trainlab.Run("kept", config, logs=tmp_path) as run:
        Trainer(run, config).fit(Scored(), loader())
    assert "" not in [line.strip() for line in capsys.readouterr().out.rstrip("\n").split("\n")]


def test_a_missing_metric_is_told_at_the_first_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stop(Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                raise RuntimeError("the second step of the first epoch")

    config = TrainingConfig(accelerator="cpu", num_workers=0)
    with (
        pytest.raises(RuntimeError, match="second step"),
        trainlab.Run("kept", config, logs=tmp_path) as run,
    ):
        trainer = Trainer(run, config, callbacks=[Stop()], val_check_interval=1)
        trainer.fit(Scored("val/score"), loader(), loader())
    assert "warning: monitor=val/loss: nothing of that name was logged" in capsys.readouterr().out


def test_a_checkpoint_callback_without_a_folder_writes_beside_our_own(tmp_path: Path) -> None:
    theirs = ModelCheckpoint(monitor="val/loss", mode="max", save_last=True)
    done = train(tmp_path, Scored(), theirs)
    assert Path(theirs.best_model_path).parent == done.run.checkpoints
    assert "epoch=0-step=2.ckpt" in names(done)
    assert {"best.ckpt", "last.ckpt", "step-00000006.ckpt"} <= set(names(done))
    assert checkpoint.newest(done.run.folder) == done.run.checkpoints / "step-00000006.ckpt"
    assert (done.run.checkpoints / "last.ckpt").samefile(done.run.checkpoints / "step-00000006.ckpt")
    assert not (done.run.folder / "kept").exists()
    assert done.log_dir == str(done.run.folder)


@pytest.mark.parametrize("filename", ["best", "step-{step}", "best-step-{epoch}"])
def test_a_checkpoint_callback_never_overwrites_or_deletes_our_own_files(
    filename: str, tmp_path: Path
) -> None:
    for auto in (True, False):
        theirs = ModelCheckpoint(
            monitor="val/loss", mode="max", filename=filename, auto_insert_metric_name=auto, save_last=True
        )
        done = train(tmp_path, Scored(scores=(1.0, 2.0, 3.0)), theirs, save_top_k=2, keep=99)
        ours = ["best-step-00000002.ckpt", "best-step-00000004.ckpt", "best.ckpt", "last.ckpt"]
        assert names(done) == ours + [f"step-0000000{step}.ckpt" for step in (2, 4, 6)]
        assert checkpoint.load(done.run.checkpoints / "best.ckpt")["global_step"] == 2
        assert Path(theirs.best_model_path).parent == done.run.checkpoints / "own"


EVERY = {"save_top_k": -1, "every_n_epochs": 1}  # says nothing about the best
HIGHEST = {"monitor": "val/loss", "mode": "max"}


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        ([], "best.ckpt"),
        ([EVERY], "best.ckpt"),
        ([HIGHEST], "epoch=0-step=2.ckpt"),
        ([EVERY, HIGHEST], "epoch=0-step=2-v1.ckpt"),
    ],
)
def test_the_best_checkpoint_is_that_of_the_first_callback_with_a_monitor_or_ours(
    callbacks: list[dict[str, Any]], expected: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    class Tested(Scored):
        def test_step(self, batch: list[torch.Tensor]) -> None:
            pass

    config = TrainingConfig(accelerator="cpu", num_workers=0)
    with trainlab.Run("kept", config, logs=tmp_path) as run:
        trainer = Trainer(run, config, callbacks=[ModelCheckpoint(**each) for each in callbacks])
        trainer.fit(Tested(), loader(), loader())
        trainer.test(dataloaders=loader(), ckpt_path="best", verbose=False)
    assert Path(str(trainer.ckpt_path)) == run.checkpoints / expected
    assert not [each for each in recwarn if "ModelCheckpoint" in str(each.message)]


def test_not_a_number_is_never_better(tmp_path: Path) -> None:
    nan = float("nan")
    done = train(tmp_path, Scored(scores=(nan, 2.0, nan)))
    assert record(done)["best_checkpoint"]["step"] == 4


def test_what_is_monitored_but_never_logged_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(tmp_path, Scored("val/loss"), monitor="val/lost", mode="min")
    assert done.best_checkpoint is None
    said = capsys.readouterr().out
    assert said.count("warning: monitor=val/lost: nothing of that name was logged") == 1
    assert "Did you mean 'val/loss'?" in said


def test_a_metric_of_the_training_can_be_monitored(tmp_path: Path) -> None:
    config = settings(monitor="train/loss_epoch", epochs=2)
    with trainlab.Run("noisy", config, logs=tmp_path) as run:
        done = fit(run, config)
    points = curves(run.folder).query("tag == 'train/loss_epoch'")
    best = record(done)["best_checkpoint"]
    assert best["value"] == pytest.approx(points["value"].min())
    assert best["step"] == 1 + points.loc[points["value"].idxmin(), "step"]


def test_a_module_loads_from_its_checkpoint_without_arguments(tmp_path: Path) -> None:
    done = train(tmp_path, Scored(scores=(1.0, 2.0, 3.0)))
    loaded = Scored.load_from_checkpoint(done.best_checkpoint, weights_only=True)
    assert loaded.hparams["scores"] == (1.0, 2.0, 3.0)
    assert "layer.weight" in loaded.state_dict()
