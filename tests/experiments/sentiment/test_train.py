"""A run of the sentiment experiment leaves everything behind, goes on where it stopped, and predicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import ResNetConfig, ResNetModel

import trainlab
from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.model import Encoded, load, predict
from experiments.sentiment.train import METRICS, Result, train
from trainlab.errors import UserError
from trainlab.run import checkpoint

TRAINLAB = [sys.executable, "-c", "from trainlab.cli import main; main()"]


@pytest.fixture(scope="module")
def result(tiny: SentimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLAB_LOGS", str(tmp_path_factory.mktemp("logs")))
        patch.delenv("TRAINLAB_RUN", raising=False)
        return train(tiny)


@pytest.fixture(scope="module")
def events(result: Result) -> EventAccumulator:
    accumulator = EventAccumulator(str(result.run), size_guidance={"images": 0, "tensors": 0})
    return accumulator.Reload()


def curve(run: Path, tag: str) -> dict[int, float]:
    history = trainlab.scalars(run)
    points = history[history["tag"] == tag]
    return dict(zip(points["step"], points["value"], strict=True))


def test_a_run_leaves_its_folder_behind(result: Result) -> None:
    record = json.loads((result.run / "run.json").read_text())
    assert record["experiment"] == "sentiment"
    assert record["status"] == "finished"
    assert record["metrics"] == list(METRICS)
    assert record["data"] | {"training": 48, "validation": 12, "test": 20} == record["data"]
    assert record["best_checkpoint"]["monitor"] == "val/loss"
    assert set(METRICS) <= set(record["last"])
    assert {"best.ckpt", "checkpoint-24"} <= {path.name for path in (result.run / "checkpoints").iterdir()}


def test_every_curve_is_there(result: Result) -> None:
    evaluated = list(range(1, 24, 2))
    for name in ("loss", "accuracy", "f1", "precision", "recall"):
        assert list(curve(result.run, f"val/{name}")) == evaluated
    assert list(curve(result.run, "train/loss")) == evaluated
    names = ("accuracy", "f1", "precision", "recall")
    assert all(list(curve(result.run, f"test/{name}")) == [23] for name in ("accuracy", "f1"))
    assert all(list(curve(result.run, f"val_tfidf/{name}")) == [0, 23] for name in names)
    tested = json.loads((result.run / "run.json").read_text())["tested"]
    assert tested == result.table().to_dict()


def test_pictures_and_the_most_wrong_are_in_tensorboard(events: EventAccumulator) -> None:
    assert {"views/confusion", "views/precision_recall"} <= set(events.Tags()["images"])
    assert "most wrong/text_summary" in events.Tags()["tensors"]


def test_tensorboard_has_what_was_measured_before_pictures_and_the_machine(events: EventAccumulator) -> None:
    known = {tag.partition("/")[0] for kind in ("scalars", "images") for tag in events.Tags()[kind]}
    assert sorted(known) == ["test", "train", "val", "val_tfidf", "views", "vitals"]


def test_it_learns(result: Result) -> None:
    table = result.table()
    assert table.loc["accuracy", "fine-tuned"] > 0.8
    assert (table.loc["low"] < table.loc["accuracy"]).all()
    assert list(table.columns) == ["fine-tuned", "tfidf"]
    assert 0 <= result.chance() <= 1


def test_the_figures_are_those_of_the_best_step(result: Result) -> None:
    saved = checkpoint.load(result.run / "checkpoints" / "best.ckpt")
    for name, values in result.classifier.model.state_dict().items():
        assert torch.equal(values, saved["state_dict"][name])
    losses = curve(result.run, "val/loss")
    assert saved["global_step"] - 1 == min(losses, key=lambda step: losses[step])


def test_the_last_step_is_kept_where_no_metric_is_named(tiny: SentimentConfig, result: Result) -> None:
    kept = train(tiny.model_copy(update={"metric_for_best": "last"}))
    record = json.loads((kept.run / "run.json").read_text())
    assert record["best_checkpoint"] == {"path": "checkpoints/best.ckpt", "step": 24}
    saved = checkpoint.load(kept.run / "checkpoints" / "best.ckpt")
    assert saved["global_step"] == 24
    assert curve(kept.run, "val/loss") == curve(result.run, "val/loss"), "the training is the same"
    found = predict(kept.run, kept.answers["text"].tolist())
    assert np.allclose(found["positive"], kept.answers["positive"], atol=1e-6)


def test_the_checkpoint_predicts_alone(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.sentiment.model.locate", None)  # no backbone is looked for
    texts = result.answers["text"].tolist()
    found = predict(result.run, texts)
    assert found["text"].tolist() == texts
    assert np.allclose(found["positive"], result.answers["positive"], atol=1e-6)
    assert found["label"].tolist() == [int(each >= 0.5) for each in found["positive"]]
    assert predict(result.run, texts[0])["positive"][0] == pytest.approx(found["positive"][0], abs=1e-6)


def test_padding_changes_no_answer(result: Result) -> None:
    short, long = "the film was dull", "the cast was lovely and " * 8
    alone = [result.predict(text)["positive"][0] for text in (long, short)]
    assert np.allclose(result.predict([long, short])["positive"], alone, atol=1e-6)


@pytest.mark.parametrize("texts", [[], "", ["good", "  "]])
def test_nothing_to_judge_is_refused(result: Result, texts: list[str] | str) -> None:
    with pytest.raises(UserError, match="No text to judge"):
        predict(result.run, texts)


def test_another_experiments_run_is_refused(tmp_path: Path) -> None:
    with trainlab.Run("mine") as run:
        run.log({"val/loss": 1.0}, 0)
    with pytest.raises(UserError, match="no run of the sentiment experiment but of mine"):
        load(run.folder)


def test_the_command_predicts(result: Result) -> None:
    texts = ["the film was lovely and warm", "the plot was dull [bold]and silly"]
    environment = {**os.environ, "TRAINLAB_LOGS": str(result.run.parents[1]), "COLUMNS": "100"}
    done = subprocess.run(
        [*TRAINLAB, "predict", "last", *texts], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for text, label in zip(texts, result.predict(texts)["label"], strict=True):
        (line,) = [line for line in done.stdout.splitlines() if text in line]
        assert ("negative", "positive")[label] in line


def test_evaluating_more_often_changes_nothing_that_is_learned(result: Result, tiny: SentimentConfig) -> None:
    """What the lesson stands on: a coarse run is every n-th point of a fine one."""
    coarse = train(tiny.model_copy(update={"logging_steps": 10}))
    fine, seldom = (curve(run, "val/loss") for run in (result.run, coarse.run))
    assert seldom == {step: fine[step] for step in (9, 19, 23)}
    steps = coarse.lesson().loc[10]["step"]
    assert steps.equals(result.lesson().loc[10]["step"])


def test_a_resumed_run_is_the_one_that_was_never_stopped(result: Result, tiny: SentimentConfig) -> None:
    often = tiny.model_copy(update={"checkpoint_every": "5"})
    whole = train(often)  # with a point of train/loss beside each checkpoint

    def stop(self: trainlab.Run, metrics: dict[str, float], step: int) -> None:
        logged(self, metrics, step)
        if "train/loss" in metrics and step == 15:
            raise RuntimeError

    logged = trainlab.Run.log
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(trainlab.Run, "log", stop)
        train(often)
    stopped = trainlab.find("last")
    resumed = train(often.model_copy(update={"resume": str(stopped)}))
    assert resumed.run == stopped
    for tag in ("train/loss", "val/loss", "test/accuracy"):
        assert curve(resumed.run, tag) == curve(whole.run, tag)
    assert curve(whole.run, "val/loss") == curve(result.run, "val/loss")
    assert resumed.answers.equals(result.answers)


def test_patience_ends_a_training_that_gets_no_better_with_its_best_weights(tiny: SentimentConfig) -> None:
    """A learning rate of 1 breaks the network, so the first evaluations are the best."""
    stopped = train(tiny.model_copy(update={"patience": 2, "learning_rate": 1.0}))
    losses = curve(stopped.run, "val/loss")
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(1, best + 5, 2))
    assert max(losses) < 23
    record = json.loads((stopped.run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["best_checkpoint"]["step"] == best + 1


def test_fast_dev_run_leaves_nothing_but_the_record(tiny: SentimentConfig) -> None:
    quick = train(tiny.model_copy(update={"fast_dev_run": 1}))
    assert not (quick.run / "checkpoints").exists()
    assert len(quick.answers) <= tiny.eval_batch_size


def test_a_backbone_that_reads_no_texts_is_refused(
    tiny: SentimentConfig, tmp_path: Path, own_logs: Path
) -> None:
    sizes = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1]}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(tmp_path / "resnet")
    with pytest.raises(UserError, match="can't classify texts"):
        train(tiny.model_copy(update={"backbone": str(tmp_path / "resnet")}))
    assert not own_logs.exists()


def test_bad_data_exits_2_with_a_sentence_and_no_run(tmp_path: Path, own_logs: Path) -> None:
    (tmp_path / "mine.csv").write_text("review,sentiment\nfine,positive\n")
    command = [*TRAINLAB, "run", "sentiment", f"data={tmp_path / 'mine.csv'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no column 'text'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(own_logs.glob("*/*"))


def test_a_metric_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(UserError, match="metric_for_best=val/acuracy"):
        SentimentConfig.parse({"metric_for_best": "val/acuracy"})


def test_texts_that_are_cut_are_counted(result: Result) -> None:
    tokenizer = result.classifier.tokenizer
    assert Encoded(tokenizer, ["the film " * 100, "the film"]).cut == 1


@pytest.mark.slow
def test_the_sample_is_learned_better_than_by_counting_words() -> None:
    result = train(SentimentConfig(accelerator="cpu"))
    table = result.table().loc["accuracy"]
    assert table["fine-tuned"] >= table["tfidf"] + 0.05
