"""Any Transformers Trainer in a run: its curves, its record, its checkpoints; nothing of it is replaced."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import EvalPrediction, TrainerCallback

import tiny_models
import trainlab
from full_disk import largest_file
from noisy_tuning import STEPS, Texts, arguments, model, tune
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.runs import trimming
from trainlab.runs.frames import scalars
from trainlab.training.config import FineTuneConfig
from trainlab.training.transformers import arguments as arguments_of
from trainlab.training.transformers import limited, tagged

EVALUATED = [2, 5, 8, 9]  # after so many steps, counted from 0, as with Lightning
BEST = {"load_best_model_at_end": True, "save_steps": 3, "eval_steps": 3}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, transformers.Trainer]]:
    """A training that is cut off from the network: the run's folder, and the Trainer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it phones home"))
        logs = tmp_path_factory.mktemp("logs")
        with trainlab.Run("tuned", {"lr": 0.01}, logs=logs, monitor=False) as run:
            trained = tune(run, **BEST)
            trained.evaluate(Texts(10, seed=3), metric_key_prefix="test")
    return run.folder, trained


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def curve(folder: Path, tag: str) -> dict[int, float]:
    points = scalars(folder).query("tag == @tag")
    return dict(zip(points["step"], points["value"], strict=True))


def said(trainer: transformers.Trainer, key: str) -> list[float]:
    """Return what the Trainer itself remembers of what it has logged."""
    return [each[key] for each in trainer.state.log_history if key in each]


def test_what_it_logs_stands_under_the_tags_of_every_training(
    done: tuple[Path, transformers.Trainer],
) -> None:
    folder, trainer = done
    for tag, key in {
        "train/loss": "loss",
        "train/lr": "learning_rate",
        "train/grad_norm": "grad_norm",
        "val/loss": "eval_loss",
        "val/accuracy": "eval_accuracy",
        "val/noise": "eval_noise",
    }.items():
        assert list(curve(folder, tag)) == EVALUATED, tag
        assert list(curve(folder, tag).values()) == pytest.approx(said(trainer, key)), tag
    points = scalars(folder)
    for tag in ("vitals/samples_per_second", "vitals/step_seconds", "vitals/data_wait_share"):
        assert (points.query("tag == @tag")["value"] > 0).all(), tag
    assert list(curve(folder, "test/loss")) == [9]
    assert {tag.partition("/")[0] for tag in points["tag"]} == {"train", "val", "test", "vitals"}
    assert not points["tag"].str.contains("runtime|flos|epoch|steps_per_second|train/train").any()


def test_the_run_is_recorded_like_every_other(done: tuple[Path, transformers.Trainer]) -> None:
    folder, _ = done
    record = record_of(folder)
    assert (record["status"], record["config"]) == ("finished", {"lr": 0.01})
    assert (record["planned"]["steps"], record["planned"]["epochs"]) == (STEPS, 2)
    told = record["training_arguments"]
    assert (told["learning_rate"], told["warmup_steps"]) == (0.01, 2)
    assert "adam_beta1" not in told  # a default
    losses = curve(folder, "val/loss")
    step = 1 + min(losses, key=lambda each: losses[each])
    best = record["best_checkpoint"]
    assert (best["monitor"], best["step"], best["path"]) == (
        "val/loss",
        step,
        f"checkpoints/checkpoint-{step}",
    )
    assert best["value"] == pytest.approx(losses[step - 1]) == record["best"]["val/loss"]["value"]


def test_each_checkpoint_has_its_digests_and_nothing_else_is_written(
    done: tuple[Path, transformers.Trainer],
) -> None:
    folder, _ = done
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        f"checkpoint-{step}" for step in (10, 3, 6, 9)
    ]
    for state in checkpoint.full_states(folder):
        checkpoint.check(state)
        lines = (state / checkpoint.SUMS).read_text().splitlines()
        assert len(lines) == len(list(state.iterdir())) - 1
    found = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert found - {".lock"} == {"run.json", "checkpoints"}


class OwnLoss(transformers.Trainer):
    """Weighs its loss by hand, and logs the parts of it."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        entropy = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"])
        size = outputs.logits.square().mean()
        self.log({"cross_entropy": entropy.item(), "size": size.item(), "note": "no number"})  # type: ignore[dict-item]
        loss = entropy + 0.1 * size
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_scheduler_type": "cosine"},
        {"gradient_accumulation_steps": 2},
        {"label_smoothing_factor": 0.1},
        {"bf16": True},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
        {"save_strategy": "no"},
        BEST | {"metric_for_best_model": "accuracy", "save_total_limit": 1},
        {"save_strategy": "best", "metric_for_best_model": "accuracy", "load_best_model_at_end": True},
        {"eval_on_start": True},
        {"max_steps": 4},
        {"kind": OwnLoss},
        {"kind": OwnLoss, "gradient_accumulation_steps": 2},
        {"kind": transformers.Seq2SeqTrainer},
    ],
    ids=str,
)
def test_it_works_with_what_people_ask_a_trainer_for(changes: dict[str, Any], tmp_path: Path) -> None:
    kind = changes.get("kind", transformers.Trainer)
    if kind is transformers.Seq2SeqTrainer:
        args = transformers.Seq2SeqTrainingArguments(**arguments(tmp_path / "seq2seq"))
        changes = changes | {"options": {"args": args}}
    with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        trained = tune(run, **changes)
    assert record_of(run.folder)["status"] == "finished"
    for tag, key in {"train/loss": "loss", "val/loss": "eval_loss", "train/lr": "learning_rate"}.items():
        assert list(curve(run.folder, tag).values()) == pytest.approx(said(trained, key)), tag
        assert max(curve(run.folder, tag)) == trained.state.global_step - 1
    for state in checkpoint.full_states(run.folder):
        checkpoint.check(state)
    if kind is OwnLoss:
        assert list(curve(run.folder, "train/cross_entropy")) == list(range(trained.state.global_step))
        assert "train/note" not in set(scalars(run.folder)["tag"])


def test_early_stopping_ends_a_run_as_finished(tmp_path: Path) -> None:
    patient = transformers.EarlyStoppingCallback(early_stopping_patience=1)
    with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        trained = tune(run, patient, **BEST, learning_rate=3.0)
    assert trained.state.global_step < STEPS
    assert record_of(run.folder)["status"] == "finished"


def test_how_often_it_is_evaluated_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    weights = []
    for every in (1, 3):
        with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
            weights.append(tune(run, eval_steps=every).model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def scored(*values: float, name: str = "skill") -> dict[str, Any]:
    told = iter(values)

    def score(_: EvalPrediction) -> dict[str, float]:
        return {name: next(told)}

    return {"compute_metrics": score}


@pytest.mark.parametrize(
    ("metrics", "changes", "step"),
    [
        ({"val/skill": "max"}, {}, 6),
        ({"val/skill": "min"}, {"greater_is_better": False}, 3),
        ((), {"greater_is_better": False}, 3),
    ],
)
def test_the_best_is_what_somebody_says_is_best(
    metrics: Any, changes: dict[str, Any], step: int, tmp_path: Path
) -> None:
    with trainlab.Run("tuned", metrics=metrics, logs=tmp_path, monitor=False) as run:
        options = scored(0.5, 0.9, 0.7, 0.8)
        tune(run, **BEST | {"metric_for_best_model": "eval_skill"} | changes, options=options)
    record = record_of(run.folder)
    assert record["best_checkpoint"]["step"] == step
    assert record["best"]["val/skill"]["step"] == step - 1


@pytest.mark.parametrize(
    ("name", "changes", "refused"),
    [
        ("skill", {}, r"val/skill: .*it is unknown .*metrics=\{'val/skill'"),
        ("skill", {"greater_is_better": True}, "it is unknown"),  # it can't be told from the guess
        ("wer", {}, r"val/wer: .*the minimum is best.*greater_is_better=False"),
    ],
)
def test_no_training_begins_whose_best_weights_transformers_would_guess(
    name: str, changes: dict[str, Any], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=refused), trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, **BEST, metric_for_best_model=name, **changes, options=scored(0.5, name=name))
    assert not checkpoint.full_states(run.folder)


def test_who_asks_for_tensorboard_is_told_that_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        tune(run, report_to="tensorboard", max_steps=1)
    assert 'report_to="none"' in capsys.readouterr().out


class FillDisk(TrainerCallback):
    """Lets no file grow beyond what a record needs, once some steps are made."""

    def on_step_end(self, args: Any, state: transformers.TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 4:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    large = model()
    large.ballast = torch.nn.Parameter(torch.zeros(100_000))
    unlimited, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(Exception, match="too large"),
        largest_file(unlimited),  # which puts back what FillDisk changes
        trainlab.Run("tuned", logs=tmp_path) as run,
    ):
        tune(run, FillDisk(), options={"model": large})
    record = record_of(run.folder)
    assert record["status"] == "failed"
    assert "too large" in record["reason"]
    assert checkpoint.newest(run.folder) == run.checkpoints / "checkpoint-3"


def test_trimming_takes_the_folders_and_leaves_best_weights(
    tmp_path: Path, done: tuple[Path, transformers.Trainer]
) -> None:
    with trainlab.Run("tuned", logs=tmp_path, monitor=False) as run:
        trained = tune(run)
    with pytest.raises(UserError, match="holds no best weights, only states"):
        trimming.plan(run.folder)
    checkpoint.save({"state_dict": trained.model.state_dict()}, run.checkpoints / "best.ckpt")
    size = sum(path.stat().st_size for path in run.checkpoints.glob("checkpoint-*/*"))
    planned = trimming.plan(run.folder)
    assert planned.frees == size
    trimming.trim(planned)
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "best.ckpt",
        "best.ckpt.sha256",
        checkpoint.WEIGHTS_ONLY,
    }


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ({"loss": 1, "epoch": 0.5, "total_flos": 2.0}, {"train/loss": 1.0}),
        ({"eval_quora_loss": 1.0, "eval_quora_runtime": 2.0}, {"val/quora_loss": 1.0}),
        ({"train_loss": 1.0, "train_runtime": 2.0, "train_steps_per_second": 3.0}, {}),
        ({"rewards/chosen": 0.5, "val/mine": 1.0}, {"train/rewards/chosen": 0.5, "val/mine": 1.0}),
        ({"loss": "1.0", "learning_rate": None}, {}),
    ],
)
def test_names_become_tags(logs: dict[str, Any], expected: dict[str, float]) -> None:
    assert tagged(logs) == expected


def settings(**changes: Any) -> FineTuneConfig:
    usual = {"accelerator": "cpu", "num_workers": 0, "checkpoint_every": "1h", "keep": 99, "epochs": 2}
    steps = {"batch_size": 4, "logging_steps": 3, "warmup_steps": 2, "learning_rate": 0.01}
    return FineTuneConfig.parse(usual | steps | changes)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, {5, 10}),
        ({"checkpoint_every": "4"}, {4, 5, 8, 10}),
        ({"every_n_epochs": 9}, {10}),
        ({"checkpoint_every": "0.0001s", "every_n_epochs": 9}, set(range(1, 11))),
    ],
)
def test_settings_ask_for_checkpoints_by_time_steps_and_epochs(
    changes: dict[str, Any], steps: set[int], tmp_path: Path
) -> None:
    config = settings(**changes)
    with trainlab.Run("tuned", config, logs=tmp_path, monitor=False) as run:
        trained = tune(run, config=config, options={"args": arguments_of(run, config)})
    found = {checkpoint.step_of(path) for path in checkpoint.full_states(run.folder)}
    losses = said(trained, "eval_loss")
    better = {step for place, step in enumerate((3, 6, 9, 10)) if losses[place] == min(losses[: place + 1])}
    assert found == steps | better


@pytest.mark.parametrize(
    ("changes", "name", "greater"),
    [
        ({}, "loss", False),
        ({"metric_for_best_model": "eval_accuracy"}, "accuracy", True),
        ({"metric_for_best_model": "skill", "greater_is_better": True}, "skill", True),
        ({"metric_for_best": "val/skill", "mode": "min"}, "skill", False),
    ],
)
def test_settings_say_which_weights_are_best(
    changes: dict[str, Any], name: str, greater: bool, tmp_path: Path
) -> None:
    config = settings(**changes)
    with trainlab.Run("tuned", config, logs=tmp_path, monitor=False) as run:
        told = arguments_of(run, config)
    assert (told.metric_for_best_model, told.greater_is_better) == (name, greater)


def test_the_last_weights_are_kept_where_no_metric_chooses(tmp_path: Path) -> None:
    config = settings(metric_for_best="last")
    with trainlab.Run("tuned", config, logs=tmp_path, monitor=False) as run:
        trained = tune(run, config=config, options={"args": arguments_of(run, config)})
    assert {checkpoint.step_of(path) for path in checkpoint.full_states(run.folder)} == {5, 10}
    assert len(said(trained, "eval_loss")) == 4, "it is evaluated as ever"
    assert trained.state.best_model_checkpoint is None
    assert "best_checkpoint" not in json.loads((run.folder / "run.json").read_text())


def test_patience_without_a_metric_is_refused() -> None:
    with pytest.raises(UserError, match=r"patience=3 metric_for_best=last: no metric says when to stop"):
        settings(metric_for_best="last", patience=3).check_machine()


def test_a_metric_without_a_direction_is_refused_among_settings_too(tmp_path: Path) -> None:
    config = settings(metric_for_best="val/skill")
    with (
        pytest.raises(UserError, match="mode=min or mode=max"),
        trainlab.Run("tuned", config, logs=tmp_path, monitor=False) as run,
    ):
        tune(run, config=config, options={"args": arguments_of(run, config)} | scored(0.5))


@pytest.mark.parametrize(
    ("changes", "limit", "kept"), [({}, 1.0, 18), ({}, 3, 12), ({}, 0.5, 8), ({"fast_dev_run": 2}, 1.0, 8)]
)
def test_fewer_batches_can_be_asked_for(changes: dict[str, Any], limit: float, kept: int) -> None:
    assert len(limited(Texts(18, seed=1), settings(**changes), limit, 4)) == kept


@pytest.mark.skipif(
    not (find_spec("sentence_transformers") and find_spec("datasets")),
    reason="sentence-transformers or datasets is not installed",
)
def test_it_records_a_sentence_transformer_trainer(tmp_path: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(tiny_models.bert(tmp_path, ["a", "b", "c", "d"])))
    network = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    pairs = {"anchor": ["a", "b", "c", "d"] * 4, "positive": ["a b", "b c", "c d", "d a"] * 4}
    with trainlab.Run("pairs", logs=tmp_path, monitor=False) as run:
        told = arguments(run.checkpoints)
        trained = SentenceTransformerTrainer(
            model=network,
            args=Arguments(**told),
            train_dataset=Dataset.from_dict(pairs),
            eval_dataset=Dataset.from_dict(pairs),
            loss=MultipleNegativesRankingLoss(network),
            callbacks=[trainlab.RunCallback(run)],
        )
        trained.train()
    assert list(curve(run.folder, "val/loss").values()) == pytest.approx(said(trained, "eval_loss"))
    checkpoint.check(checkpoint.full_states(run.folder)[0])
    with trainlab.Run("pairs", logs=tmp_path, resume="last", monitor=False) as run:
        assert run.checkpoint is not None
        assert run.checkpoint.name == f"checkpoint-{trained.state.global_step}"


@pytest.mark.skipif(not (find_spec("trl") and find_spec("datasets")), reason="trl is not installed")
def test_it_records_a_trainer_of_trl(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    words = ["a", "b", "c", "d"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tiny_models.bert(tmp_path, words)))
    tokenizer.eos_token = tokenizer.sep_token
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), **size))
    texts = Dataset.from_dict({"text": ["a b c d", "b c d a", "c d a b"] * 6})
    with trainlab.Run("sft", logs=tmp_path, monitor=False) as run:
        trained = SFTTrainer(
            model=network,
            args=SFTConfig(**arguments(run.checkpoints), max_length=16, bf16=False),
            train_dataset=texts,
            eval_dataset=texts,
            processing_class=tokenizer,
            callbacks=[trainlab.RunCallback(run)],
        )
        trained.train()
    for tag, key in {"val/loss": "eval_loss", "train/mean_token_accuracy": "mean_token_accuracy"}.items():
        assert list(curve(run.folder, tag).values()) == pytest.approx(said(trained, key)), tag
    checkpoint.check(checkpoint.full_states(run.folder)[0])
