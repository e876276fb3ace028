"""Triplets and unseen items as Lightning takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from trainlab.news.model import Batch, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainlab.news.examples import Examples


class TripletSet(Dataset):
    """Triplets [T, 3] of rows of `tokens`, fetched a whole batch at a time."""

    def __init__(self, tokens: Tokens, triplets: NDArray[Any]) -> None:
        self.tokens = tokens
        self.triplets = torch.from_numpy(triplets)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return a batch: each item's tokens once, however many of the triplets it is part of."""
        items, places = torch.unique(self.triplets[rows], return_inverse=True)
        return Batch(self.tokens.rows(items), places)


class NewsData(lightning.LightningDataModule):
    """Shuffled triplets to train on; the unseen items, all at once, to validate on."""

    def __init__(self, examples: Examples, tokens: Tokens, batch_size: int) -> None:
        super().__init__()
        self.examples, self.tokens, self.batch_size = examples, tokens, batch_size

    def unseen(self) -> Tokens:
        """Return the tokens of the unseen items."""
        return self.tokens.rows(torch.from_numpy(self.examples.unseen))

    def train_dataloader(self) -> DataLoader:
        """Return batches of triplets, shuffled; order, and workers where they pay, are the Trainer's."""
        triplets = TripletSet(self.tokens, self.examples.training)
        return DataLoader(triplets, batch_size=self.batch_size, shuffle=True, collate_fn=_as_it_is)

    def val_dataloader(self) -> DataLoader:
        """Return one batch: the unseen items."""
        return DataLoader([self.unseen()], batch_size=None)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
