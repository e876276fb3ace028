from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from trainlab.errors import UserError
from trainlab.training.data import Order, OrderedLoader, ordered, random_state
from trainlab.training.workers import take_loaders


def rows_of(order: Order) -> list[list[int]]:
    return [part.rows for part in order]


def joined(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_an_epoch_has_each_row_once() -> None:
    batches = rows_of(Order(10, 4, shuffle=True))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(joined(batches)) == list(range(10))
    assert len(Order(10, 4, shuffle=True, drop_last=True)) == len(rows_of(Order(10, 4, shuffle=True))) - 1


def test_the_order_depends_on_seed_epoch_and_stream_alone() -> None:
    def shuffled(seed: int = 0, epoch: int = 0, stream: int = 0) -> list[list[int]]:
        order = Order(50, 4, shuffle=True, seed=seed, stream=stream)
        order.set_epoch(epoch)
        torch.rand(3)
        return rows_of(order)

    assert shuffled() == shuffled()
    others = [shuffled(seed=1), shuffled(epoch=1), shuffled(stream=1)]
    assert len({str(each) for each in [shuffled(), *others]}) == 4
    assert rows_of(Order(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_each_process_gets_its_share_of_the_same_batches() -> None:
    whole = rows_of(Order(24, 6, shuffle=True))
    shares = [rows_of(Order(24, 6, shuffle=True, rank=rank, world=3)) for rank in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted(joined(parts)) == sorted(batch)


def test_a_last_smaller_batch_is_filled_by_repeating_its_rows() -> None:
    last = rows_of(Order(9, 4, shuffle=True))[-1]
    parts = [rows_of(Order(9, 4, shuffle=True, rank=rank, world=4))[-1] for rank in range(4)]
    assert parts == [last] * 4
    three = [rows_of(Order(7, 4, shuffle=True, rank=rank, world=2))[-1] for rank in range(2)]
    assert [len(part) for part in three] == [2, 2]
    assert sorted(Counter(joined(three)).values()) == [1, 1, 2]


class Backwards(Dataset):
    """Knows its own order: from the last row to the first, turned by a random number of rows."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, row: int) -> int:
        return row

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        assert batch_size == 2
        return np.roll(np.arange(7)[::-1], rng.integers(7))


def test_a_data_set_may_shuffle_itself_by_seed_and_epoch() -> None:
    def shuffled(epoch: int) -> list[int]:
        loader = ordered(DataLoader(Backwards(), batch_size=2, shuffle=True), seed=0)
        loader.sampler.set_epoch(epoch)
        return [row for batch in loader for row in batch.tolist()]

    epochs = [shuffled(epoch) for epoch in range(6)]
    assert epochs == [shuffled(epoch) for epoch in range(6)]
    assert len({str(each) for each in epochs}) > 1
    for each in epochs:
        assert {(one - other) % 7 for one, other in pairwise(each)} == {1}


def test_a_data_set_is_not_asked_where_nothing_is_shuffled() -> None:
    loader = ordered(DataLoader(Backwards(), batch_size=2), seed=0)
    assert [row for batch in loader for row in batch.tolist()] == list(range(7))


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(UserError, match=r"6 can't be shared equally between 4.*such as 8"):
        Order(24, 6, shuffle=True, world=4)


class Noisy(Dataset):
    """Items with random numbers from everywhere, as augmentation makes them."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.tensor([row, random.random(), np.random.rand(), torch.rand(()).item()])


def batches_of(loader: Any, epoch: int = 0) -> list[Any]:
    loader.sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_make_the_same_batches_as_this_process(persistent: bool) -> None:
    here = ordered(DataLoader(Noisy(), batch_size=4, shuffle=True), seed=1)
    workers = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=persistent)
    there = ordered(workers, seed=1)
    for epoch in (0, 1):
        torch.rand(1), random.random(), np.random.rand()
        assert batches_of(here, epoch) == batches_of(there, epoch)
    assert batches_of(here, 0) != batches_of(here, 1)


def test_making_batches_leaves_the_random_state_of_training_alone() -> None:
    loader = ordered(DataLoader(Noisy(), batch_size=4, shuffle=True), seed=1)
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    batches_of(loader)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tolist() == before[2]


def test_a_failing_block_puts_the_random_state_back_too() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError), random_state((1, 2)):
        torch.rand(1)
        raise ValueError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_counts_is_what_was_taken_not_what_workers_prepared(workers: int) -> None:
    def make() -> OrderedLoader:
        loader = ordered(DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers), seed=3)
        loader.sampler.set_epoch(2)
        return loader

    whole = [batch.tolist() for batch in make()]
    stopped = make()
    batches = iter(stopped)
    taken = [next(batches).tolist() for _ in range(2)]
    state = stopped.state_dict()
    assert (state["epoch"], state["batch"]) == (2, 2)
    resumed = make()
    resumed.load_state_dict(state)
    assert taken + [batch.tolist() for batch in resumed] == whole
    assert [batch.tolist() for batch in resumed] == whole


def test_a_state_is_for_its_epoch_alone() -> None:
    loader = ordered(DataLoader(Noisy(), batch_size=4, shuffle=True), seed=3)
    loader.load_state_dict({"epoch": 0, "batch": 6, "items": 22, "batch_size": 4})
    assert len(batches_of(loader, 1)) == 6


def test_a_state_of_other_data_is_refused() -> None:
    loader = ordered(DataLoader(Noisy(), batch_size=4), seed=3)
    with pytest.raises(UserError, match=r"over 1,000 items in batches of 8; .* now 22 items in batches of 4"):
        loader.load_state_dict({"epoch": 0, "batch": 6, "items": 1000, "batch_size": 8})


class Whole(TensorDataset):
    """Fetched a batch at a time."""

    def __getitems__(self, rows: list[int]) -> torch.Tensor:
        return self.tensors[0][rows]


def as_it_is(batch: Any) -> Any:
    return batch


def test_a_data_set_may_fetch_its_batches_whole() -> None:
    data = Whole(torch.arange(7))
    loader = ordered(DataLoader(data, batch_size=3, shuffle=True, collate_fn=as_it_is), seed=0)
    assert loader.dataset is data
    assert (len(loader), loader.batch_size) == (3, 3)
    assert sorted(joined(batches_of(loader))) == list(range(7))


def test_batches_may_be_packed_sequences() -> None:
    texts = [torch.arange(length) for length in (5, 4, 3)]
    (batch,) = ordered(DataLoader(texts, batch_size=3, collate_fn=pack_sequence), seed=0)
    assert isinstance(batch, PackedSequence)


class Tagged(DataLoader):
    """Somebody's own loader."""

    def __init__(self, tag: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag

    def __iter__(self) -> Any:
        return ((self.tag, batch.tolist()) for batch in super().__iter__())


def test_a_loader_keeps_what_else_was_asked_of_it() -> None:
    theirs = Tagged(
        "mine", torch.arange(6), batch_size=4, drop_last=True, shuffle=True, timeout=3, num_workers=1
    )
    loader = ordered(theirs, seed=0)
    ((tag, rows),) = loader
    assert (tag, len(rows), loader.loader.timeout, loader.num_workers) == ("mine", 4, 3, 1)
    assert isinstance(theirs.sampler, RandomSampler)
    assert theirs.collate_fn is not loader.loader.collate_fn


class Opened(Dataset):
    """Open in workers only."""

    offset = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> int:
        return row + self.offset


def open_it(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.offset = 100  # type: ignore[attr-defined]


def test_a_worker_is_started_with_the_data_set_that_the_user_knows() -> None:
    loader = DataLoader(Opened(), batch_size=4, num_workers=1, worker_init_fn=open_it)
    assert batches_of(ordered(loader, seed=0)) == [[100, 101, 102, 103]]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(range(4))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream(), batch_size=2),
        DataLoader(torch.arange(4), batch_size=None),
        DataLoader(torch.arange(4), sampler=WeightedRandomSampler([1.0] * 4, 4)),
        DataLoader(torch.arange(4), sampler=RandomSampler(range(4), replacement=True)),
        DataLoader(torch.arange(4), batch_sampler=[[0, 1], [2, 3]]),
        [1, 2, 3],
    ],
    ids=["iterable", "unbatched", "weighted", "replacement", "batch sampler", "no loader"],
)
def test_a_loader_with_an_order_of_its_own_is_left_as_it_is(loader: Any) -> None:
    assert ordered(loader, seed=0) is loader


class Net(lightning.LightningModule):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(4, 1), []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        several = batch if isinstance(batch, dict) else {"only": batch}
        rows = {name: each.tolist() for name, each in several.items()}
        self.seen.append((self.current_epoch, index, rows))
        return sum(self.layer(each).square().mean() for each in several.values())

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.layer(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)


class Save(Callback):
    """Saves where the hook of that name is called at a step."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        setattr(self, hook, self._save)
        self.step, self.path = step, path

    def _save(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(loader: Any, *callbacks: Callback, resume: Path | None = None, **options: Any) -> Net:
    torch.manual_seed(0)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        **dict.fromkeys(off, False) | options,
    )
    take_loaders(trainer, seed=7)
    net = Net()
    trainer.fit(net, loader, DataLoader(Noisy(), batch_size=11), ckpt_path=resume, weights_only=True)
    return net


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 8),
        ("on_train_batch_end", 12),  # an epoch's last batch
        ("on_validation_end", 12),
        ("on_train_epoch_end", 12),
    ],
)
def test_lightning_goes_on_with_the_batch_after_the_last(
    workers: int, hook: str, step: int, tmp_path: Path
) -> None:
    path = tmp_path / "some.ckpt"
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
    whole = fit(loader, Save(hook, step, path))
    assert [each[:2] for each in whole.seen] == [(epoch, batch) for epoch in range(3) for batch in range(6)]
    resumed = fit(loader, resume=path)
    assert resumed.seen == whole.seen[step:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_overfitting_sees_the_same_batches_in_each_epoch() -> None:
    with pytest.warns(UserWarning, match="turning off the train dataloader shuffling"):
        seen = fit(DataLoader(torch.rand(22, 4), batch_size=4, shuffle=True), overfit_batches=2).seen
    assert len(seen) == 6
    assert [each[2] for each in seen[:2]] == [each[2] for each in seen[2:4]]


def test_several_loaders_are_shuffled_each_by_itself() -> None:
    rows = torch.arange(8.0).repeat(4, 1).T
    loaders = {name: DataLoader(rows, batch_size=8, shuffle=True) for name in ("a", "b")}
    seen = fit(loaders).seen
    assert all(batch["a"] != batch["b"] for *_, batch in seen)
    assert fit(loaders, reload_dataloaders_every_n_epochs=1).seen == seen
