"""The news experiment: `train` runs it and returns what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from trainlab.news import report
from trainlab.news.baselines import tfidf
from trainlab.news.dataset import NewsData
from trainlab.news.examples import Examples, draw
from trainlab.news.frozen import tokens_of
from trainlab.news.model import NewsModel
from trainlab.news.neighbours import BEST, check_query, nearest
from trainlab.runs import checkpoint
from trainlab.runs.frames import scalars
from trainlab.runs.plots import plot_curves
from trainlab.runs.run import Run
from trainlab.training.restoring import restore
from trainlab.training.trainer import Trainer, accelerator_of, set_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trainlab.news.config import NewsConfig
    from trainlab.runs.metrics import Direction

METRICS: dict[str, Direction] = {  # the loss grows with the margin: what comes first compares any two runs
    "val/precision_at_10": "max",
    "val/precision_at_10_subcategory": "max",
    "val/mrr": "max",
    "val/triplet_accuracy": "max",
    "val/loss": "min",
}
QUERIES = 3  # titles that recommendations are shown for


@dataclass
class Result:
    """What a run gave: folder, examples, metrics of each system, network, embeddings [N, D] of all news."""

    run: Path
    config: NewsConfig
    examples: Examples
    metrics: dict[str, dict[str, float]]
    model: NewsModel
    vectors: NDArray[Any]

    def table(self) -> pd.DataFrame:
        """Return the metrics on unseen items, one column a system: untrained, trained, TF-IDF.

        All of `trained` is of one epoch, the best by the settings' `monitor`; in `trainlab runs` each metric
        has its own best epoch. Losses compare within a column's own scale only; all other rows compare across
        columns.
        """
        columns = [name for name in ("untrained", "trained", "tfidf") if name in self.metrics]
        rows = [tag.removeprefix("val/") for tag in METRICS]
        return pd.DataFrame(self.metrics).loc[rows, columns].rename_axis("unseen items")

    def history(self) -> pd.DataFrame:
        """Return every point of the run's curves: tag, step, wall_time, value."""
        return scalars(self.run)

    def recommendations(self, titles: str | Sequence[str] | None = None, k: int = 10) -> pd.DataFrame:
        """Return the k nearest news to each title (see `recommend`); without titles, to a few unseen ones."""
        titles = self.titles() if titles is None else titles
        check_query(titles, k)
        return nearest(self.model, self.examples.news, self.vectors, titles, k)

    def unseen(self) -> NDArray[Any]:
        """Return the embeddings [U, D] of the unseen items."""
        return self.vectors[self.examples.unseen]

    def titles(self) -> list[str]:
        """Return a few unseen titles, of different categories."""
        table = self.examples.news.table.iloc[self.examples.unseen]
        return table.drop_duplicates("category")["title"].head(QUERIES).tolist()

    def curves(self) -> Figure:
        """Draw losses and metrics over the steps, baselines beside them."""
        return plot_curves(self.history(), report.CURVES)

    def similarity(self) -> Figure:
        """Draw how far apart the categories of the unseen items lie."""
        return report.plot_similarity(report.category_distances(self.examples, self.unseen()))


def train(config: NewsConfig) -> Result:
    """Train, or with `trained=false` only measure; everything is recorded in a run's folder.

    With `resume` a run goes on from its newest checkpoint, or with its last measuring if only that is left.
    With `fast_dev_run` a few batches are trained on, to see that all of it works, and nothing is recorded.

    Shows what it does on standard output and standard error. Raises UserError when data or backbone can't be
    used, before there is a run.
    """
    examples = draw(config)
    config.check_machine()
    _say(examples.news.summary())
    _say(examples.summary())
    with Run("news", config, seed=config.seed, data=examples.news.fingerprint(), metrics=METRICS) as run:
        _say(f"run: {run.folder}")
        return _record(run, config, examples)


def _record(run: Run, config: NewsConfig, examples: Examples) -> Result:
    set_threads()
    torch.manual_seed(config.seed)  # the head's first weights
    model = NewsModel.pretrained(config).to(accelerator_of(config.accelerator))
    _say(
        f"measuring {Path(config.backbone).name}, untrained, and TF-IDF on the {len(examples.unseen):,} items"
    )
    tokens = tokens_of(examples, model, config.text)
    data = NewsData(examples, tokens, config)
    metrics = _baselines(run, config, data, model)
    if config.trained:
        model, steps = _train(run, config, data, model)
    else:
        steps = _keep_untrained(run, model, metrics["untrained"])
    vectors = model.embed(tokens).double().numpy()
    if config.trained:
        metrics["trained"] = examples.measure(vectors[examples.unseen], config.margin)
    result = Result(run.folder, config, examples, metrics, model, vectors)
    if config.fast_dev_run:
        _say("fast_dev_run: all of it works. No curves, no checkpoint: leave fast_dev_run out to train.")
    else:
        _finish(run, result, steps)
    return result


def _baselines(run: Run, config: NewsConfig, data: NewsData, model: NewsModel) -> dict[str, dict[str, float]]:
    """Measure the backbone's own vectors and TF-IDF, and log them at step 0."""
    raw = model.embed(data.unseen(), raw=True).double().numpy()
    metrics = {
        "untrained": data.examples.measure(raw, config.margin),
        "tfidf": data.examples.measure(tfidf(data.examples, config.text), config.margin),
    }
    if not config.fast_dev_run and not run.has("val_untrained/loss", 0):  # a resumed run has logged them
        _log_baselines(run, metrics, 0)
    return metrics


def _log_baselines(run: Run, metrics: dict[str, dict[str, float]], step: int) -> None:
    for system in ("untrained", "tfidf"):
        run.log({f"val_{system}/{name}": value for name, value in metrics[system].items()}, step)


def _train(run: Run, config: NewsConfig, data: NewsData, model: NewsModel) -> tuple[NewsModel, int]:
    """Train; return the best epoch's network and the number of steps made."""
    if config.devices == 1:  # other processes would each get a copy
        data.tokens = model.remembering(data.tokens)
    callbacks: list[Callback] = [report.Evaluation(run, data.examples, config.margin)]
    trainer = Trainer(run, config, callbacks=callbacks)
    trainer.fit(model, data)
    if trainer.best_checkpoint is not None:
        model = restore(NewsModel, trainer.best_checkpoint)
        _say(f"trained, below: the weights with the best {config.monitor}")
    return model.to(accelerator_of(config.accelerator)).eval(), trainer.global_step


def _keep_untrained(run: Run, model: NewsModel, metrics: dict[str, float]) -> int:
    """Record a network that is not to be trained as it is, so that it can recommend like any other."""
    run.log({f"val/{name}": value for name, value in metrics.items()}, 0)
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    checkpoint.save(state, run.folder / BEST)
    return 0


def _finish(run: Run, result: Result, steps: int) -> None:
    """Write what the trained network looks like: projector, similarity, distances, neighbours."""
    if steps:
        _log_baselines(run, result.metrics, steps)  # a second point makes a line of them
    else:
        report.log_distances(run, result.examples, result.unseen(), steps)
    report.log_embeddings(run, result.examples, result.unseen(), steps)
    run.log_text("recommendations", report.as_markdown(result.recommendations()), steps)


def _say(text: str) -> None:
    print(text, flush=True)
