"""The order of training: it depends on seed and epoch alone, so it can be taken up at any batch.

Torch's own shuffling draws from the global random state, which dropout, validation and the number of workers
move too. Here each epoch has one order, whoever asks; each batch has its own random state while it is made
(augmentation, masking), the same in this process and in a worker; and what is counted is what training took,
not what workers have prepared.
"""

from __future__ import annotations

import copy
import os
import random
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    get_worker_info,
)

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Arrange = Callable[[np.random.Generator, int], NDArray[np.int64]]


AHEAD = 2  # batches that a worker prepares ahead, torch's own default


class Part(NamedTuple):
    """One process's share of a batch: rows of the data set, and the key of the random state it is made in."""

    rows: list[int]
    key: tuple[int, ...]


@dataclass(eq=False)
class Order(Sampler[Part]):
    """The batches of an epoch, `batch_size` rows of `items` each, dealt to `world` processes.

    `epoch` and `start`, the first batch to be given, may be set before each pass. Process `rank` gets every
    `world`-th row of each batch. In a last, smaller batch, rows are repeated from its beginning until each
    process has the same number: there those rows count twice, as little as `world` allows.

    Several loaders of one training differ by `stream`. A data set that knows a better order than any (see
    `ordered`) gives its own `arrange`. Raises UserError for a batch size that can't be shared equally.
    """

    items: int
    batch_size: int
    _: KW_ONLY
    shuffle: bool
    drop_last: bool = False
    seed: int = 0
    stream: int = 0
    rank: int = 0
    world: int = 1
    arrange: Arrange | None = None
    epoch: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            fitting = self.batch_size + -self.batch_size % self.world
            raise UserError(
                f"A batch of {self.batch_size} can't be shared equally between {self.world} processes. "
                f"Use a batch size that {self.world} divides, such as {fitting}."
            )

    def __len__(self) -> int:
        full, rest = divmod(self.items, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Part]:
        rows = self.rows()
        for batch in range(self.start, len(self)):
            key = (self.seed, self.epoch, 1 + batch, self.rank, self.stream)
            whole = rows[batch * self.batch_size :][: self.batch_size]
            even = len(whole) + -len(whole) % self.world  # NumPy's resize repeats from the beginning
            yield Part(np.resize(whole, even)[self.rank :: self.world].tolist(), key)

    def set_epoch(self, epoch: int) -> None:
        """Take another epoch's order from the next pass on; Lightning calls this before each epoch."""
        self.epoch = epoch

    def rows(self) -> NDArray[np.int64]:
        """Return all rows [items] in this epoch's order."""
        if not self.shuffle:
            return np.arange(self.items)
        rng = np.random.default_rng((self.seed, self.epoch, 0, 0, self.stream))
        return self.arrange(rng, self.batch_size) if self.arrange else rng.permutation(self.items)


class OrderedLoader:
    """A DataLoader whose batches come in an `Order`, and that says how far training has come.

    `state_dict()` and `load_state_dict()` are what Lightning asks for: {"epoch", "batch", "items",
    "batch_size"}, with the number of batches taken; the next pass through that epoch starts behind them.
    `dataset`, `batch_size` (of all processes together) and `num_workers` are the loader's.
    """

    def __init__(self, loader: DataLoader, order: Order) -> None:
        self.dataset, self.sampler = loader.dataset, order
        self.batch_size, self.num_workers = order.batch_size, loader.num_workers
        self.loader = copy.copy(loader)  # of whatever class; what a subclass added stays
        vars(self.loader).update(  # DataLoader refuses to have these set one by one
            dataset=_Batches(loader.dataset, loader.collate_fn),
            batch_sampler=order,
            collate_fn=_as_it_is,
            worker_init_fn=_Start(loader.worker_init_fn),
            generator=torch.Generator(),  # else each pass draws from the global one
            _iterator=None,
        )
        self._taken = 0
        self._resumed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        """Give the epoch's batches; workers start when the first is asked for, when the epoch is known."""
        resumed, self._resumed = self._resumed, {}
        self._taken = resumed.get("batch", 0) if resumed.get("epoch") == self.sampler.epoch else 0
        self.sampler.start = self._taken
        for batch in self.loader:
            self._taken += 1
            yield batch

    def use_workers(self, count: int) -> None:
        """Let so many workers make the batches from the next pass on; they are the same."""
        ahead = self.loader.prefetch_factor or AHEAD
        vars(self.loader).update(num_workers=count, prefetch_factor=ahead if count else None)
        self.num_workers = count

    def state_dict(self) -> dict[str, int]:
        """Return where training stands."""
        return {"epoch": self.sampler.epoch, "batch": self._taken, **self._size()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where training stood; raises UserError where the data or the batch size is another."""
        before, now = ([of[key] for key in self._size()] for of in (state, self._size()))
        if before != now:
            words = ["{:,} items in batches of {}".format(*each) for each in (before, now)]
            raise UserError(
                f"The checkpoint was made in the middle of an epoch over {words[0]}; "
                f"the training data is now {words[1]}. Resume with the same data and batch size."
            )
        self._resumed = dict(state)

    def _size(self) -> dict[str, int]:
        return {"items": self.sampler.items, "batch_size": self.sampler.batch_size}

    @property
    def _iterator(self) -> Any:
        """The loader's own, so that Lightning can end workers that outlive an epoch."""
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self.loader._iterator = value


def ordered(loader: Any, *, seed: int, stream: int = 0, rank: int = 0, world: int = 1) -> Any:
    """Return an OrderedLoader in place of a DataLoader, with all else that was asked of it.

    Returned as they are: loaders without batches (`batch_size=None`), of an iterable data set, or with a
    sampler of their own; their order on a resume is their own matter. A `generator` given to the loader
    gives way to the seed. A data set with a method `shuffled(rng, batch_size)` is asked for each epoch's
    order of rows, where the loader is to shuffle.
    """
    if not isinstance(loader, DataLoader) or type(loader.batch_sampler) is not BatchSampler:
        return loader
    dataset: Any = loader.dataset
    sampler: Any = loader.sampler
    shuffle = type(sampler) is RandomSampler and not sampler.replacement
    if shuffle and sampler.num_samples != len(sampler.data_source):
        return loader  # not each row once
    if not shuffle and type(sampler) is not SequentialSampler:
        return loader
    order = Order(
        len(dataset),
        loader.batch_sampler.batch_size,
        shuffle=shuffle,
        drop_last=loader.drop_last,
        seed=seed,
        stream=stream,
        rank=rank,
        world=world,
        arrange=getattr(dataset, "shuffled", None),
    )
    return OrderedLoader(loader, order)


class _Batches(Dataset):
    """A data set's batches, each made whole in a random state of its own."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitems__(self, part: Part) -> Any:
        """Return a batch, collated."""
        with random_state(part.key):
            if getattr(self.dataset, "__getitems__", None):
                return self.collate(self.dataset.__getitems__(part.rows))
            return self.collate([self.dataset[row] for row in part.rows])


class _Start:
    """Starts a worker: calls a loader's `worker_init_fn` with the user's data set where torch names it."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self.function = function

    def __call__(self, worker: int) -> None:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            os.setpgid(0, 0)  # torchrun ends the whole group, and the current step needs its batches
        if self.function:
            info = get_worker_info()
            assert info is not None
            object.__setattr__(info, "dataset", info.dataset.dataset)  # type: ignore[attr-defined]
            self.function(worker)


@contextmanager
def random_state(key: Sequence[int]) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's (CPU) random numbers inside the block, put all back after."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) >> 32)
    torch.default_generator.manual_seed(int(words[2]) >> 1)  # torch.manual_seed would seed GPUs too
    try:
        yield
    finally:  # which Lightning's isolate_rng does not have
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _as_it_is(batch: Any) -> Any:
    return batch
