"""The sentiment experiment: `train` runs it and returns what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import transformers

import trainlab
from experiments.sentiment import report
from experiments.sentiment.baselines import tfidf
from experiments.sentiment.data import Reviews, draw
from experiments.sentiment.metrics import chance, interval, measure
from experiments.sentiment.model import Classifier, Encoded, positive
from experiments.sentiment.predicting import answer
from trainlab.run.recorder import VIEWS
from trainlab.run.restoring import BEST
from trainlab.run.run import Run
from trainlab.runs.frames import scalars
from trainlab.runs.plots import plot_curves
from trainlab.training.transformers import arguments, limited
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from torch.utils.data import Dataset

    from experiments.sentiment.config import SentimentConfig

METRICS = ("val/loss", "val/accuracy", "val/f1", "test/accuracy")
TESTED = (
    "accuracy",
    "f1",
)  # of the test, among the curves: TensorBoard opens on test/; run.json has the others
COARSE = 5  # the lesson's other resolution, in intervals of `logging_steps`: the chapter's 50 steps to 10


@dataclass
class Result:
    """What a run gave: its folder, the reviews, the best step's network, and what is said of the test.

    `answers` are the test's reviews [text, label] with the probability that each is positive, by the network
    (`positive`) and by TF-IDF (`tfidf`).
    """

    run: Path
    config: SentimentConfig
    reviews: Reviews
    classifier: Classifier
    answers: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Return the metrics on the test, one column a system, with the 95 % interval of the accuracy."""
        return pd.DataFrame(_measured(self.answers)).rename_axis(f"test, {len(self.answers):,} reviews")

    def chance(self) -> float:
        """Return how probable so great a difference to TF-IDF would be if both were equally good."""
        return chance(*(self.answers[name].to_numpy() for name in ("label", "positive", "tfidf")))

    def history(self) -> pd.DataFrame:
        """Return every point of the run's curves: tag, step, wall_time, value."""
        return scalars(self.run)

    def curves(self) -> Figure:
        """Draw loss, accuracy and learning rate over the steps."""
        return plot_curves(self.history(), report.CURVES)

    def confusion(self) -> Figure:
        """Draw how many reviews of each label were taken for which."""
        return report.plot_confusion(self.answers)

    def precision_recall(self) -> Figure:
        """Draw precision against recall over all thresholds, TF-IDF beside it."""
        return report.plot_precision_recall(self.answers)

    def most_wrong(self, count: int = report.WRONG) -> pd.DataFrame:
        """Return the test's wrong answers, the surest first."""
        return report.most_wrong(self.answers, count)

    def lesson(self) -> pd.DataFrame:
        """Return the best step by loss and by accuracy, each `logging_steps` and at every fifth of these."""
        return report.lesson(self.history(), self._resolutions())

    def plot_lesson(self) -> Figure:
        """Draw the lesson."""
        return report.plot_lesson(self.history(), self._resolutions())

    def predict(self, texts: str | Sequence[str]) -> pd.DataFrame:
        """Return what the network makes of any texts (see `predict`)."""
        return answer(self.classifier, texts)

    def _resolutions(self) -> tuple[int, int]:
        return self.config.logging_steps, COARSE * self.config.logging_steps


def train(config: SentimentConfig) -> Result:
    """Fine-tune, measure the best step's network on the test, and record everything in a run's folder.

    With `resume` a run goes on from its newest checkpoint. With `fast_dev_run` a few batches are trained on,
    to see that all of it works, and nothing is recorded.

    Shows what it does on standard output. Raises UserError when data or backbone can't be used, before there
    is a run.
    """
    reviews = draw(config)
    config.check_machine()
    set_threads()
    print(reviews.summary(), flush=True)
    transformers.set_seed(config.seed)  # the classifier's first weights
    classifier = Classifier.pretrained(config)
    with Run("sentiment", config, seed=config.seed, data=reviews.fingerprint(), metrics=METRICS) as run:
        print(f"run: {run.folder}", flush=True)
        return _record(run, config, reviews, classifier)


def _record(run: Run, config: SentimentConfig, reviews: Reviews, classifier: Classifier) -> Result:
    parts = {
        side: Encoded(classifier.tokenizer, table["text"].tolist(), table["label"].tolist())
        for side, table in reviews.parts().items()
    }
    for side, encoded in parts.items():
        if encoded.cut:
            print(
                f"  {side}: {encoded.cut:,} of {len(encoded):,} reviews are cut at {config.max_tokens} tokens"
            )
    callbacks: list[transformers.TrainerCallback] = []
    if config.patience is not None:
        callbacks.append(transformers.EarlyStoppingCallback(early_stopping_patience=config.patience))
    if not config.fast_dev_run:
        callbacks.append(trainlab.RunCallback(run, config))
    trainer = transformers.Trainer(
        classifier.model,
        arguments(run, config),
        train_dataset=limited(parts["training"], config, config.limit_train_batches, config.batch_size),
        eval_dataset=limited(parts["validation"], config, config.limit_val_batches, config.eval_batch_size),
        data_collator=classifier.collate,
        compute_metrics=_metrics,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    test = limited(parts["test"], config, config.limit_test_batches, config.eval_batch_size)
    answers = _test(trainer, reviews, test)
    result = Result(run.folder, config, reviews, classifier, answers)
    if not config.fast_dev_run:
        state = trainer.state
        step = state.best_global_step or state.global_step
        classifier.save(run.folder / BEST, step)
        told = {"path": BEST, "monitor": config.metric_for_best, "value": state.best_metric, "step": step}
        run.update(best_checkpoint=told)
        _finish(run, result, state.global_step)
    return result


def _metrics(found: transformers.EvalPrediction) -> dict[str, float]:
    """Return what validation logs besides the loss."""
    return measure(found.label_ids, positive(found.predictions))  # type: ignore[arg-type]


def _test(trainer: transformers.Trainer, reviews: Reviews, test: Dataset) -> pd.DataFrame:
    """Return the test's reviews, as many as `limit_test_batches` leaves, with what both systems answer."""
    scores: Any = trainer.predict(test).predictions
    answers = reviews.test.iloc[: len(scores)].copy()
    answers["positive"] = positive(scores)
    answers["tfidf"] = tfidf(reviews.training, answers["text"])
    return answers


def _measured(answers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return each system's metrics on the test."""
    labels, systems = answers["label"].to_numpy(), {"fine-tuned": "positive", "tfidf": "tfidf"}
    measured = {}
    for system, column in systems.items():
        metrics = measure(labels, answers[column].to_numpy())
        low, high = interval(metrics["accuracy"], len(labels))
        measured[system] = {"accuracy": metrics["accuracy"], "low": low, "high": high, **metrics}
    return measured


def _finish(run: Run, result: Result, steps: int) -> None:
    """Write what came out on the test, and TF-IDF's part: figures, pictures, and the most wrong reviews."""
    step, tested = max(0, steps - 1), _measured(result.answers)
    run.log({f"test/{name}": tested["fine-tuned"][name] for name in TESTED}, step)
    run.update(tested=tested)
    held = result.reviews.validation
    validated = measure(held["label"].to_numpy(), tfidf(result.reviews.training, held["text"]))
    for each in (0, step):  # two points make a line
        run.log({f"val_tfidf/{name}": value for name, value in validated.items()}, each)
    run.log_figure(f"{VIEWS}confusion", result.confusion(), step)
    run.log_figure(f"{VIEWS}precision_recall", result.precision_recall(), step)
    run.log_text("most wrong", report.as_markdown(result.most_wrong()), step)
