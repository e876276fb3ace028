"""How a Trainer takes its loaders, how many workers prepare batches, and how many threads torch uses.

Both from what this process may use, not from what the machine has: a container sees all its CPUs.
"""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from lightning.pytorch.trainer.connectors.data_connector import _DataConnector
from lightning.pytorch.trainer.states import RunningStage
from torch.utils._pytree import tree_leaves

from trainlab import system
from trainlab.training.data import AHEAD, OrderedLoader, ordered, random_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    import lightning
    from torch.utils.data import DataLoader

QUICK = 0.005  # seconds; a batch that is ready sooner is made while nobody waits
SLOW = 0.25  # seconds; batches that take longer can't be measured in passing
WINDOW = 0.3  # seconds that one count of workers is measured for
BUDGET = 1.5  # seconds in which a last count may be tried
ALIKE = 0.9  # of the best rate: fewer workers that come as close are better
PAYS = 4  # times the seconds that workers take to start, for the batches of an epoch, or they don't
SHARED = Path("/dev/shm")  # batches on their way from a worker lie here


class Choice(NamedTuple):
    """A number of workers, the batches a second that were measured {workers: rate}, and why."""

    workers: int
    rates: dict[int, float]
    reason: str

    def __str__(self) -> str:
        return f"workers: {self.workers} ({self.reason})"


class _Rate(NamedTuple):
    batches: float  # a second, once all workers are running
    start: float  # seconds until the first one
    bytes: int  # of the largest


def set_threads() -> int:
    """Give torch as many threads as this process may use CPUs, and return how many."""
    threads = min(torch.get_num_threads(), math.ceil(system.cpus()))
    torch.set_num_threads(threads)
    return threads


def threads_for(processes: int = 1, workers: int = 0) -> int:
    """Return the threads for torch in each of `processes` here that have `workers` each.

    A container sees all CPUs of the machine; more threads than its share slow each other many times over.
    OMP_NUM_THREADS may ask for fewer.
    """
    asked, cpus = os.environ.get("OMP_NUM_THREADS", ""), math.ceil(system.cpus())
    most = int(asked) if asked.isdigit() and int(asked) else cpus
    return max(1, min(most, cpus // processes - workers))


def measure_workers(
    loader: DataLoader | OrderedLoader, candidates: Iterable[int] = (0, 1, 2, 4)
) -> dict[int, float]:
    """Return the batches a second that each number of workers makes, {workers: rate}; 0 is this process.

    Takes about half a second for each, or a few batches where those take longer. The loader, its order and
    the random numbers of training stay as they are.
    """
    return {count: _rate(loader, count).batches for count in candidates}


def choose_workers(loader: OrderedLoader, *, processes: int = 1, spare: int = 0) -> Choice:
    """Choose how many workers prepare a loader's batches in each of `processes` on this machine.

    As few as come close to the most batches a second; none where a batch is made in a few milliseconds, or
    an epoch's batches are hardly slower than the start of workers. `spare` CPUs are left for training. Takes
    two seconds at most, and next to nothing where batches are quick.
    """
    since = time.perf_counter()
    rates = {0: _rate(loader, 0, most=3)}
    seconds, known = 1 / rates[0].batches, {0: rates[0].batches}
    takes = f"a batch is ready in {seconds * 1000:.3g} ms"
    if seconds < QUICK:
        return Choice(0, known, takes)
    try:
        space = os.statvfs(SHARED)
        ahead = max(rates[0].bytes, 1) * (loader.loader.prefetch_factor or AHEAD)
        fitting = space.f_bavail * space.f_frsize // 2 // ahead  # half of it is for their batches
    except OSError:
        fitting = 0
    most = max(0, min(math.ceil(system.cpus()) // processes - spare, fitting, len(loader)))
    if most == 0:
        return Choice(0, known, f"{takes}; no CPU or shared memory is left for workers")
    if seconds > SLOW:
        return Choice(most, known, f"{takes}; as many as CPUs and shared memory allow")
    for count in sorted({1, most, *(2**power for power in range(1, most.bit_length()))}):
        rates[count] = _rate(loader, count)
        before = max(rate.batches for each, rate in rates.items() if each < count)
        if count > 1 and (time.perf_counter() - since > BUDGET or ALIKE * rates[count].batches < before):
            break
    known = {each: rate.batches for each, rate in rates.items()}
    best = ALIKE * max(rate for each, rate in known.items() if each)
    count = min(each for each, rate in known.items() if each and rate >= best)
    shown = ", ".join(f"{each}: {rate:.3g}" for each, rate in known.items())
    reason = f"batches/s by number of workers: {shown}"
    alone, start = len(loader) / known[0], rates[count].start
    if alone < PAYS * start:
        count = 0
        reason += f"; an epoch's are made in {alone:.2g} s, workers start in {start:.2g} s"
    return Choice(count, known, reason)


def _rate(loader: DataLoader | OrderedLoader, workers: int, most: float = math.inf) -> _Rate:
    """Time batches; the first of each worker, which all come at once, are not counted."""
    own = copy.copy(loader.loader if isinstance(loader, OrderedLoader) else loader)
    vars(own).update(
        batch_sampler=chain.from_iterable(repeat(own.batch_sampler)),  # type: ignore[arg-type] # without end
        num_workers=workers,
        prefetch_factor=(own.prefetch_factor or AHEAD) if workers else None,
        persistent_workers=False,
        _iterator=None,
    )
    since = time.perf_counter()
    with random_state((workers,)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*suggested max number of worker.*")  # that is what is measured
        batches = iter(own)
        size = sum(leaf.nbytes for leaf in tree_leaves(next(batches)) if isinstance(leaf, torch.Tensor))
        for _ in range(workers - 1):
            next(batches)
        start, count = time.perf_counter(), 0
        while not count or (count < most and time.perf_counter() < start + WINDOW):
            next(batches)
            count += 1
    return _Rate(count / (time.perf_counter() - start), start - since, size)


def take_loaders(trainer: lightning.Trainer, seed: int, workers: int | Literal["auto"] = 0) -> None:
    """Let a Trainer, once made, give its training loaders an order of our own (see `data.ordered`).

    Those that have no workers get some: so many, or as many as are chosen for them, which is printed. A
    number leaves them their CPUs: torch takes fewer threads. A choice does not, since what is measured
    differs from time to time, and sums of floats by the number of threads.

    With several processes each validates and tests on the whole set: none is repeated or left out, and the
    metrics need no gathering. A training loader with an order of its own is shared out by Lightning, which
    gives each process whole batches.
    """
    connector = trainer._data_connector
    connector.__class__ = _Loaders  # what it knows by now, such as the data, stays as it is
    vars(connector).update(_seed=seed, _workers=workers, _loaded=0.0, _stream=0)


class _Loaders(_DataConnector):
    """Lightning's, which asks for each loader here; there is no public place where all of them pass."""

    _seed: int
    _workers: int | Literal["auto"]
    _loaded: float  # the epoch before which the loaders were asked for the last time
    _stream: int  # the number of the last one among them

    def _prepare_dataloader(self, dataloader: Any, shuffle: bool, mode: RunningStage) -> Any:
        if mode == RunningStage.TRAINING:
            # the number of a loader among those that are asked for together, from 0
            loaded = self.trainer.fit_loop._last_train_dl_reload_epoch
            self._stream, self._loaded = self._stream + 1 if loaded == self._loaded else 0, loaded
            world = {"rank": self.trainer.global_rank, "world": self.trainer.world_size}
            dataloader = ordered(dataloader, seed=self._seed, stream=self._stream, **world)
            if isinstance(dataloader, OrderedLoader) and not dataloader.num_workers:
                dataloader.use_workers(self._count(dataloader))
        if mode in (RunningStage.TRAINING, RunningStage.PREDICTING):
            return super()._prepare_dataloader(dataloader, shuffle, mode)
        return dataloader

    def _count(self, loader: OrderedLoader) -> int:
        """Return the number of workers for a loader; the first process chooses for all."""
        trainer = self.trainer
        if self._workers != "auto":
            torch.set_num_threads(threads_for(trainer.num_devices, self._workers))
            return self._workers
        choice = None
        if trainer.is_global_zero:
            on_cpu = trainer.strategy.root_device.type == "cpu"
            choice = choose_workers(loader, processes=trainer.num_devices, spare=int(on_cpu))
            print(choice, flush=True)
        return trainer.strategy.broadcast(choice and choice.workers) or 0
