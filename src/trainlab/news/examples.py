"""What a run trains on and is measured by: triplets to learn from, unseen items, and triplets among these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainlab.errors import UserError
from trainlab.news.data import News, read, split_items
from trainlab.news.metrics import mean_reciprocal_rank, precision_at, triplet_metrics
from trainlab.news.triplets import draw_triplets

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trainlab.news.config import NewsConfig
    from trainlab.news.metrics import Vectors

MOST_UNSEEN = 10_000  # items measured each epoch; more would cost minutes and change the third digit


@dataclass(frozen=True)
class Examples:
    """`training` [T, 3] and `unseen` [U] are rows of the news; `validation` [V, 3] are places in `unseen`.

    With `split=item` no unseen item, nor one of the same title, is part of a training triplet. With
    `split=triplet` no validation triplet is a training triplet, but the articles are the same: their
    figures say how well training is remembered, not how well it carries over.
    """

    news: News
    training: NDArray[np.int64]
    unseen: NDArray[np.int64]
    validation: NDArray[np.int64]
    frozen: Path | None = None  # the folder that they were taken from, if they were

    def measure(self, vectors: Vectors, margin: float) -> dict[str, float]:
        """Return all metrics of the unseen items' vectors [U, D]; those that are not defined are left out."""
        categories = self.news.codes("category")[self.unseen]
        subcategories = self.news.codes("subcategory")[self.unseen]
        metrics = triplet_metrics(vectors, self.validation, margin) | {
            "precision_at_10": precision_at(vectors, categories),
            "precision_at_10_subcategory": precision_at(vectors, subcategories),
            "mrr": mean_reciprocal_rank(vectors, categories),
        }
        return {name: value for name, value in metrics.items() if not np.isnan(value)}

    def summary(self) -> str:
        """Return a line for people: how much there is to learn from and to be measured by."""
        frozen = f"\n  frozen: {self.frozen}" if self.frozen else ""
        return (
            f"  {len(self.training):,} triplets to learn from; {len(self.validation):,} to be measured by, "
            f"among {len(self.unseen):,} items held out{frozen}"
        )


def draw(config: NewsConfig) -> Examples:
    """Return the examples: frozen ones where `trainlab data freeze news` was called, or prepared anew.

    Raises UserError when the frozen ones are of other settings or data, or what `prepare` raises.
    """
    from trainlab.news import frozen  # it freezes what `prepare` returns

    return frozen.thaw(config) or prepare(config)


def prepare(config: NewsConfig) -> Examples:
    """Read the news, split them and draw the triplets; the same settings and file give the same examples.

    Raises UserError when the file can't be used (see `data.read`), or one side is left without triplets.
    """
    news = read(config.data)
    examples = _by_item(news, config) if config.split == "item" else _by_triplet(news, config)
    if not len(examples.training) or not len(examples.validation):
        side = "training" if not len(examples.training) else "validation"
        raise UserError(
            f"{news.path}: no triplets are left for {side} with class_size={config.class_size}, "
            f"min_class_items={config.min_class_items}, validation={config.validation}. Expected on each "
            "side two categories, one of them with two items: allow smaller categories, or change the share."
        )
    return examples


def _by_item(news: News, config: NewsConfig) -> Examples:
    kept = _large_enough(news, config.min_class_items)
    seen, unseen = split_items(news, config.validation, config.seed)
    seen, unseen = np.intersect1d(seen, kept), np.intersect1d(unseen, kept)
    unseen = np.sort(np.random.default_rng(config.seed).permutation(unseen)[:MOST_UNSEEN])
    training, validation = _triplets(news, seen, config), _triplets(news, unseen, config)
    return Examples(news, training, unseen, np.searchsorted(unseen, validation))


def _by_triplet(news: News, config: NewsConfig) -> Examples:
    triplets = _triplets(news, _large_enough(news, config.min_class_items), config)
    triplets = np.random.default_rng(config.seed).permutation(triplets)
    held = round(len(triplets) * config.validation)
    unseen, places = np.unique(triplets[:held], return_inverse=True)
    return Examples(news, triplets[held:], unseen, places.reshape(-1, 3))


def _triplets(news: News, rows: NDArray[np.int64], config: NewsConfig) -> NDArray[np.int64]:
    codes = news.codes("category")[rows]
    return rows[draw_triplets(codes, config.class_size, config.triplets_per_item, config.seed)]


def _large_enough(news: News, min_items: int) -> NDArray[np.int64]:
    sizes = news.table.groupby("category")["category"].transform("size")
    return np.flatnonzero(sizes >= min_items)
