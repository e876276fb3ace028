"""The sentiment experiment: `train` runs it and returns what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import transformers

import trainlab
from experiments.sentiment.data import Reviews, draw
from experiments.sentiment.metrics import THRESHOLD, chance, interval, measure
from experiments.sentiment.model import Classifier, answer, positive
from trainlab.cleaning import markdown_table
from trainlab.run.recorder import VIEWS
from trainlab.run.restoring import BEST
from trainlab.run.run import Run
from trainlab.runs.frames import scalars
from trainlab.runs.plots import plot_curves
from trainlab.training.config import LAST
from trainlab.training.transformers import arguments, limited
from trainlab.training.unpadded import STACKS, unpadded
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from experiments.sentiment.config import SentimentConfig


METRICS = ("val/loss", "val/accuracy", "val/f1", "test/accuracy")
# Of the test, among the curves, since TensorBoard opens on test/; run.json has the others
TESTED = ("accuracy", "f1")
RESOLUTIONS = (1, 5)  # the lesson's, in intervals of `logging_steps`: the chapter's 10 steps and 50
CLASSES = ("negative", "positive")
WRONG = 10  # reviews in the panel of the most wrong
SHOWN = 300  # characters of each
CURVES = {
    "cross entropy": ("train/loss", "val/loss"),
    "accuracy": ("val/accuracy", "val_tfidf/accuracy"),
    "learning rate": ("train/lr",),
}
MARKERS = {"val/loss": "*", "val/accuracy": "o"}
HOLLOW: dict[str, Any] = {"markersize": 13, "fillstyle": "none", "markeredgewidth": 1.8}
CHOICES = {"val/loss": np.argmin, "val/accuracy": np.argmax}  # the first of equals, as the run keeps it


@dataclass
class Result:
    """What a run gave: its folder, the reviews, the network that is kept, and its answers on the test.

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
        return pd.DataFrame(self.measured()).rename_axis(f"test, {len(self.answers):,} reviews")

    def measured(self) -> dict[str, dict[str, float]]:
        """Return each system's metrics on the test."""
        labels, found = self.answers["label"].to_numpy(), {}
        for system, column in (("fine-tuned", "positive"), ("tfidf", "tfidf")):
            metrics = measure(labels, self.answers[column].to_numpy())
            low, high = interval(metrics["accuracy"], len(labels))
            found[system] = {"accuracy": metrics["accuracy"], "low": low, "high": high, **metrics}
        return found

    def chance(self) -> float:
        """Return how probable so great a difference to TF-IDF would be if both were equally good."""
        return chance(*(self.answers[name].to_numpy() for name in ("label", "positive", "tfidf")))

    def history(self) -> pd.DataFrame:
        """Return every point of the run's curves: tag, step, wall_time, value."""
        return scalars(self.run)

    def curves(self) -> Figure:
        """Draw loss, accuracy and learning rate over the steps."""
        return plot_curves(self.history(), CURVES)

    def confusion(self) -> Figure:
        """Draw how many reviews of each label were taken for which."""
        import matplotlib.pyplot as plt
        from sklearn.metrics import ConfusionMatrixDisplay

        figure, axes = plt.subplots(figsize=(4, 3.6), layout="constrained")
        labels, found = self.answers["label"], (self.answers["positive"] >= THRESHOLD).astype(int)
        look: dict[str, Any] = {"display_labels": CLASSES, "cmap": "Blues", "colorbar": False}
        ConfusionMatrixDisplay.from_predictions(labels, found, labels=[0, 1], ax=axes, **look)
        axes.set(xlabel="answered", ylabel="right", title=f"{len(found):,} reviews of the test")
        plt.close(figure)
        return figure

    def precision_recall(self) -> Figure:
        """Draw precision against recall of the positive reviews over all thresholds, TF-IDF beside it."""
        import matplotlib.pyplot as plt
        from sklearn.metrics import PrecisionRecallDisplay

        figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
        labels = self.answers["label"]
        for system, name in (("positive", "fine-tuned"), ("tfidf", "TF-IDF")):
            PrecisionRecallDisplay.from_predictions(labels, self.answers[system], name=name, ax=axes)
        axes.axhline(labels.mean(), color="grey", linestyle=":", label=f"all positive ({labels.mean():.2f})")
        axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
        axes.legend(loc="lower left", fontsize="small")
        plt.close(figure)
        return figure

    def most_wrong(self, count: int = WRONG) -> pd.DataFrame:
        """Return the test's wrong answers, the surest first."""
        return most_wrong(self.answers, count)

    def lesson(self) -> pd.DataFrame:
        """Return the best step by loss and by accuracy, each `logging_steps` and at every fifth of these."""
        return lesson(self.history(), [each * self.config.logging_steps for each in RESOLUTIONS])

    def plot_lesson(self) -> Figure:
        """Draw the lesson."""
        return plot_lesson(self.history(), [each * self.config.logging_steps for each in RESOLUTIONS])

    def predict(self, texts: str | Sequence[str]) -> pd.DataFrame:
        """Return what the network makes of any texts (see `predict`)."""
        return answer(self.classifier, texts)


def train(config: SentimentConfig) -> Result:
    """Fine-tune, measure the network that is kept on the test, and record everything in a run's folder.

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
    parts = classifier.encode(reviews)
    for side, encoded in parts.items():
        if cut := encoded.cut:
            print(f"  {side}: {cut:,} of {len(encoded):,} reviews are cut at {config.max_tokens} tokens")
    if classifier.model.config.model_type in STACKS:
        unpadded(classifier.model)
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
        compute_metrics=lambda found: measure(found.label_ids, positive(found.predictions)),  # type: ignore[arg-type]
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    test = limited(parts["test"], config, config.limit_test_batches, config.eval_batch_size)
    scores: Any = trainer.predict(test).predictions  # as many as `limit_test_batches` leaves
    answers = reviews.test.iloc[: len(scores)].copy()
    answers["positive"] = positive(scores)
    answers["tfidf"] = tfidf(reviews.training, answers["text"])
    result = Result(run.folder, config, reviews, classifier, answers)
    if not config.fast_dev_run:
        state = trainer.state
        step = state.best_global_step or state.global_step
        classifier.save(run.folder / BEST, step)
        best = {"path": BEST, "step": step}
        if config.metric_for_best != LAST:
            best |= {"monitor": config.metric_for_best, "value": state.best_metric}
        run.update(best_checkpoint=best)
        _finish(run, result, state.global_step)
    return result


def _finish(run: Run, result: Result, steps: int) -> None:
    """Write what came out on the test, and TF-IDF's part: figures, pictures, and the most wrong reviews."""
    step, tested = max(0, steps - 1), result.measured()
    run.log({f"test/{name}": tested["fine-tuned"][name] for name in TESTED}, step)
    run.update(tested=tested)
    held = result.reviews.validation
    validated = measure(held["label"].to_numpy(), tfidf(result.reviews.training, held["text"]))
    for each in (0, step):  # two points make a line
        run.log({f"val_tfidf/{name}": value for name, value in validated.items()}, each)
    run.log_figure(f"{VIEWS}confusion", result.confusion(), step)
    run.log_figure(f"{VIEWS}precision_recall", result.precision_recall(), step)
    run.log_text("most wrong", as_markdown(result.most_wrong()), step)


def most_wrong(answers: pd.DataFrame, count: int = WRONG) -> pd.DataFrame:
    """Return the wrong answers [label, positive, text], the surest first."""
    wrong = answers[(answers["positive"] >= THRESHOLD) != (answers["label"] == 1)]
    surest = (wrong["positive"] - THRESHOLD).abs().sort_values(ascending=False, kind="stable").index
    return wrong.loc[surest[:count], ["label", "positive", "text"]]


def as_markdown(wrong: pd.DataFrame) -> str:
    """Return reviews as a Markdown table for TensorBoard's text panel."""
    if not len(wrong):
        return "No review of the test was answered wrongly."
    rows = [
        (row, CLASSES[label], f"{found:.3f}", " ".join(text[:SHOWN].split()) + "…" * (len(text) > SHOWN))
        for row, label, found, text in wrong.itertuples(name=None)
    ]
    right = "probability of positive"
    return markdown_table(("row", "right", right, "review"), rows, [right])


def lesson(history: pd.DataFrame, every: Sequence[int]) -> pd.DataFrame:
    """Return the best step by loss and by accuracy, one row each way of choosing and interval of steps.

    Evaluating changes nothing in a training, so every n-th point of a curve, and the last one, are what
    evaluating every n-th step gives: `every` are multiples of the run's own `logging_steps`. Steps are
    counted from 1.
    """
    curve = _evaluations(history)
    rows = []
    for steps in every:
        seen = _every(curve, steps)
        for tag, best in CHOICES.items():
            place = int(best(seen[tag].to_numpy()))
            rows.append((steps, tag, seen.index[place], *seen.iloc[place]))
    return pd.DataFrame(rows, columns=["every", "best by", "step", *CHOICES]).set_index(["every", "best by"])


def plot_lesson(history: pd.DataFrame, every: Sequence[int]) -> Figure:
    """Draw loss and accuracy at each resolution, the best step of each marked."""
    import matplotlib.pyplot as plt

    curve, best = _evaluations(history), lesson(history, every).reset_index().to_dict("records")
    figure, panels = plt.subplots(1, 2, figsize=(13, 3.8), layout="constrained")
    for axes, tag in zip(panels, CHOICES, strict=True):
        for place, steps in enumerate(every):
            axes.plot(
                _every(curve, steps)[tag],
                ".-",
                color=f"C{place}",
                linewidth=1 + place,
                label=f"every {steps} steps",
            )
        for row in best:
            label = f"best by {row['best by']}, every {row['every']}: step {row['step']}"
            color, marker = f"C{list(every).index(row['every'])}", MARKERS[row["best by"]]
            axes.plot(row["step"], row[tag], marker, color=color, label=label, **HOLLOW)
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    plt.close(figure)
    return figure


def _evaluations(history: pd.DataFrame) -> pd.DataFrame:
    """Return validation's loss and accuracy, a row for each step that was evaluated, counted from 1."""
    points = history[history["tag"].isin(CHOICES)]
    curve = points.pivot_table(index="step", columns="tag", values="value", aggfunc="last")
    return curve.set_axis(curve.index + 1)[list(CHOICES)]


def _every(curve: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return what a run with these `logging_steps` evaluates: each so many steps, and the last one."""
    return curve[(curve.index % steps == 0) | (curve.index == curve.index.max())]


def tfidf(training: pd.DataFrame, texts: pd.Series) -> NDArray[Any]:
    """Return the probability [N] that each text is positive, by a logistic regression over TF-IDF.

    Its words and pairs of words come from the same training reviews as the network learns from.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    return model.fit(training["text"], training["label"]).predict_proba(texts)[:, 1]
