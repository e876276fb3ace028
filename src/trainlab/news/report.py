"""What a run shows of its embeddings: metrics each epoch, then pictures, neighbours and the projector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Callback

from trainlab.news.metrics import distances, triplet_distances
from trainlab.runs.recorder import VIEWS

if TYPE_CHECKING:
    import lightning
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trainlab.news.examples import Examples
    from trainlab.runs.run import Run

SHOWN = ("val/loss", "val/precision_at_10")  # on the progress bar
PROJECTED = 5_000  # points the projector in a browser still turns smoothly
CURVES = {
    "triplet loss": ("train/loss_epoch", "val/loss"),
    "precision at 10": ("val/precision_at_10", "val_untrained/precision_at_10", "val_tfidf/precision_at_10"),
    "mean reciprocal rank": ("val/mrr", "val_untrained/mrr", "val_tfidf/mrr"),
}


class Evaluation(Callback):
    """Measures the unseen items' embeddings after each epoch: `val/...` and the histograms of distances."""

    def __init__(self, run: Run, examples: Examples, margin: float) -> None:
        self._run, self._examples, self._margin = run, examples, margin

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Measure the one batch of validation: all unseen items."""
        vectors = outputs.double().cpu().numpy()
        for name, value in self._examples.measure(vectors, self._margin).items():
            tag = f"val/{name}"
            module.log(tag, value, prog_bar=tag in SHOWN, batch_size=len(vectors))
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            log_distances(self._run, self._examples, vectors, trainer.global_step)


def log_distances(run: Run, examples: Examples, vectors: NDArray[Any], step: int) -> None:
    """Write histograms of the unseen triplets' distances; vectors [U, D]."""
    positive, negative = triplet_distances(vectors, examples.validation)
    run.log_histogram(f"{VIEWS}distances_positive", positive, step)
    run.log_histogram(f"{VIEWS}distances_negative", negative, step)


def log_embeddings(run: Run, examples: Examples, vectors: NDArray[Any], step: int) -> None:
    """Write the unseen items' vectors [U, D] to the projector, and the picture of their categories."""
    table = examples.news.table.iloc[examples.unseen[:PROJECTED]]
    columns = ["title", "category", "subcategory"]
    run.log_embedding("unseen", vectors[:PROJECTED], table[columns].to_numpy().tolist(), columns, step)
    run.log_figure(f"{VIEWS}similarity", plot_similarity(category_distances(examples, vectors)), step)


def category_distances(examples: Examples, vectors: NDArray[Any]) -> pd.DataFrame:
    """Return the mean distance between unseen items of each two categories, never an item and itself."""
    categories = examples.news.table["category"].to_numpy()[examples.unseen]
    names, codes = np.unique(categories.astype(str), return_inverse=True)
    members = np.eye(len(names))[codes]  # [U, C]
    sizes = members.sum(axis=0)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    near = distances(vectors, vectors)
    np.fill_diagonal(near, 0)
    with np.errstate(invalid="ignore"):  # a single item has no distance within its category: NaN, left blank
        mean = (members.T @ near @ members) / pairs
    return pd.DataFrame(mean, index=names, columns=names)


def plot_similarity(near: pd.DataFrame) -> Figure:
    """Draw the distances between categories; the darker, the more alike."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    image = axes.imshow(near, cmap="viridis")
    axes.set_xticks(range(len(near)), near.columns, rotation=90)
    axes.set_yticks(range(len(near)), near.index)
    axes.set_title("Mean distance between unseen news: dark is similar")
    figure.colorbar(image, shrink=0.8)
    plt.close(figure)
    return figure


def as_markdown(table: pd.DataFrame) -> str:
    """Return recommendations as Markdown: one table for each query."""
    parts = []
    for query, rows in table.groupby("query", sort=False):
        lines = [f"**{_cell(query)}**", "", "| rank | title | category | distance |", "|--:|---|---|--:|"]
        lines += [
            f"| {row.rank} | {_cell(row.title)} | {_cell(row.category)} | {row.distance:.3f} |"
            for row in rows.itertuples()
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|")
