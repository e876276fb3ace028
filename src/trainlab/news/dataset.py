"""Triplets and unseen items as Lightning takes them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from trainlab.news.model import Batch, Group

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from trainlab.news.config import NewsConfig
    from trainlab.news.examples import Examples
    from trainlab.news.tokens import Tokens, TokenTable


class TripletSet(Dataset):
    """Triplets [T, 3] of rows of `tokens`, fetched a whole batch at a time.

    `labels` [N] are the items' categories as codes.
    """

    def __init__(self, tokens: TokenTable, triplets: NDArray[Any], labels: NDArray[Any]) -> None:
        self.tokens, self.labels = tokens, labels
        self.triplets = torch.from_numpy(triplets)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return a batch: each item's tokens once, however many of the triplets it is part of."""
        items, places = torch.unique(self.triplets[rows], return_inverse=True)
        return Batch(self.tokens.rows(items), places)

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> NDArray[np.int64]:
        """Return the triplets' rows in a random order in which a batch shares items.

        Categories are paired at random; a batch holds the triplets between one pair or two and another, and
        with 256 triplets half of the texts that as many drawn from all of them have. Batches are shuffled.
        """
        pair = rng.permutation(self.labels.max() + 1)[self.labels] // 2
        sides = np.sort(pair[self.triplets.numpy()[:, [0, 2]]], axis=1)
        rows = np.lexsort((rng.random(len(sides)), sides[:, 1], sides[:, 0]))
        whole = len(rows) // batch_size * batch_size
        return np.append(rng.permutation(rows[:whole].reshape(-1, batch_size)), rows[whole:])


class GroupSet(Dataset):
    """Groups of up to `size` items of one category, drawn anew each time one is fetched.

    A category of n items has n / size of them, rounded up: an epoch takes each item once, on the average.
    `items` [N] are rows of `tokens`, `labels` [N] their categories as codes. A group that a batch holds
    twice is one of more items.
    """

    def __init__(self, tokens: TokenTable, items: NDArray[Any], labels: NDArray[Any], size: int) -> None:
        self.tokens, self.size = tokens, size
        order = np.argsort(labels, kind="stable")
        starts = np.unique(labels[order], return_index=True)[1]
        self.pools = [torch.from_numpy(pool) for pool in np.split(items[order], starts[1:])]
        self.categories = [
            category for category, pool in enumerate(self.pools) for _ in range(0, len(pool), size)
        ]

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, group: int) -> Group:
        return self.__getitems__([group])

    def __getitems__(self, groups: list[int]) -> Group:
        """Return a batch of groups, each item once."""
        wanted = Counter(self.categories[group] for group in groups)
        drawn = [self._draw(category, count * self.size) for category, count in wanted.items()]
        labels = torch.tensor(list(wanted)).repeat_interleave(torch.tensor([len(each) for each in drawn]))
        return Group(self.tokens.rows(torch.cat(drawn)), labels)

    def _draw(self, category: int, count: int) -> Tensor:
        """Return some of a category's items, by torch's random numbers, which the Trainer seeds."""
        pool = self.pools[category]
        return pool[torch.randperm(len(pool))[:count]]


class NewsData(lightning.LightningDataModule):
    """Shuffled triplets to train on; the unseen items, all at once, to validate on."""

    def __init__(self, examples: Examples, tokens: TokenTable, config: NewsConfig) -> None:
        super().__init__()
        self.examples, self.tokens, self.config = examples, tokens, config

    def unseen(self) -> Tokens:
        """Return the tokens of the unseen items."""
        return self.tokens.rows(self.examples.unseen)

    def train_dataloader(self) -> DataLoader:
        """Return batches, shuffled; order, and workers where they pay, are the Trainer's."""
        sampled = self.config.mining == "sampled"
        chosen = self._triplets() if sampled else self._groups()
        size = self.config.batch_size if sampled else self.config.classes_per_batch
        return DataLoader(chosen, batch_size=size, shuffle=True, collate_fn=_as_it_is)

    def _triplets(self) -> TripletSet:
        return TripletSet(self.tokens, self.examples.training, self.examples.news.codes("category"))

    def _groups(self) -> GroupSet:
        items = np.unique(self.examples.training)
        labels = self.examples.news.codes("category")[items]
        return GroupSet(self.tokens, items, labels, self.config.items_per_class)

    def val_dataloader(self) -> DataLoader:
        """Return one batch: the unseen items."""
        return DataLoader([self.unseen()], batch_size=None)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
