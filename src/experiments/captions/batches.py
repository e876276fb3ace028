"""Pictures and captions as batches: one caption each to learn from, all of them to be measured by.

Beside `data`, which is checked before each run and must not wait for torch and Lightning to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from experiments.captions.data import PAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from experiments.captions.data import Corpus, Vocabulary


class Batch(NamedTuple):
    """P pictures and their N captions.

    `pictures` [P, 3, H, W] are bytes; `words` [N, L] are numbers, from start to end and then padding;
    `lengths` [N] count the words to be predicted, the end with them; caption n belongs to picture
    `indices[n]`. `references` are each picture's captions as texts.
    """

    pictures: Tensor
    words: Tensor
    lengths: Tensor
    indices: Tensor
    references: list[list[str]]


class Item(NamedTuple):
    """A picture [3, H, W], the captions to learn, and all captions that are right."""

    picture: Tensor
    words: list[list[int]]
    references: list[str]


class CaptionSet(Dataset):
    """A picture with one of its captions an item (training), or with all of them."""

    def __init__(
        self, corpus: Corpus, rows: NDArray[np.int64], vocabulary: Vocabulary, max_words: int, training: bool
    ) -> None:
        self.corpus, self.vocabulary, self.max_words = corpus, vocabulary, max_words
        self.training = training
        captions = [(int(row), each) for row in rows for each in range(len(corpus.captions[row]))]
        self.items = captions if training else [(int(row), None) for row in rows]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        row, which = self.items[index]
        captions = self.corpus.captions[row]
        chosen = captions if which is None else [captions[which]]
        words = [self.vocabulary.encode(caption, self.max_words) for caption in chosen]
        picture = torch.from_numpy(np.array(self.corpus.pictures[row])).permute(2, 0, 1)
        return Item(crop(picture, self.corpus.crop, random=self.training), words, self.corpus.texts(row))


class CaptionsData(lightning.LightningDataModule):
    """Single captions in random order to train on; the pictures held out, with all their captions."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, max_words: int, batch_size: int) -> None:
        super().__init__()
        self.corpus, self.vocabulary = corpus, vocabulary
        self.max_words, self.batch_size = max_words, batch_size

    def train_dataloader(self) -> DataLoader:
        """Return batches of captions, shuffled again each epoch."""
        items = CaptionSet(self.corpus, self.corpus.training, self.vocabulary, self.max_words, training=True)
        alone = len(items) % self.batch_size == 1  # a last batch of one has no variance for batch norm
        return DataLoader(items, self.batch_size, shuffle=True, drop_last=alone, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        """Return batches of the pictures that an epoch is chosen by."""
        return self._held_out(self.corpus.validation)

    def test_dataloader(self) -> DataLoader:
        """Return batches of the pictures that nothing is chosen by."""
        return self._held_out(self.corpus.test)

    def _held_out(self, rows: NDArray[np.int64]) -> DataLoader:
        items = CaptionSet(self.corpus, rows, self.vocabulary, self.max_words, training=False)
        return DataLoader(items, self.batch_size, collate_fn=collate)


def collate(items: Sequence[Item]) -> Batch:
    """Put items together."""
    words = [torch.tensor(each) for item in items for each in item.words]
    indices = [index for index, item in enumerate(items) for _ in item.words]
    return Batch(
        torch.stack([item.picture for item in items]),
        pad_sequence(words, batch_first=True, padding_value=PAD),
        torch.tensor([len(each) - 1 for each in words]),
        torch.tensor(indices),
        [item.references for item in items],
    )


def crop(picture: Tensor, side: int, *, random: bool) -> Tensor:
    """Return `side` times `side` pixels of a picture [3, H, W]: anywhere in it, or its middle."""
    free = [size - side for size in picture.shape[1:]]
    top, left = [int(torch.randint(each + 1, ())) if random else each // 2 for each in free]
    return picture[:, top : top + side, left : left + side]
