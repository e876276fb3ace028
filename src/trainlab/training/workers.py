"""How many workers prepare batches, and how many threads torch computes with.

Both from what this process may use, not from what the machine has: a container sees all its CPUs.
"""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from trainlab.system import cpu_limit
from trainlab.training.batches import AHEAD, OrderedLoader, random_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    batches: float  # a second, once all workers are at work
    start: float  # seconds until the first one


def cpus() -> int:
    """Return how many CPUs this process may use: its own mask, and the container's limit rounded up."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, math.ceil(cpu_limit() or allowed)))


def set_threads() -> int:
    """Give torch as many threads as this process may use CPUs, and return how many.

    A container sees all CPUs of the machine; more threads than its share slow each other many times over.
    OMP_NUM_THREADS may ask for fewer.
    """
    threads = min(torch.get_num_threads(), cpus())
    torch.set_num_threads(threads)
    return threads


def threads_for(processes: int = 1, workers: int = 0) -> int:
    """Return the threads for torch in each of `processes` here that have `workers` each.

    More threads than CPUs slow each other many times over. OMP_NUM_THREADS may ask for fewer.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = int(asked) if asked.isdigit() and int(asked) else cpus()
    return max(1, min(most, cpus() // processes - workers))


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
    seconds, size = _seconds_a_batch(loader)
    takes = f"a batch is ready in {seconds * 1000:.3g} ms"
    if seconds < QUICK:
        return Choice(0, {0: 1 / seconds}, takes)
    most = _most(loader, size, cpus() // processes - spare)
    if most == 0:
        return Choice(0, {0: 1 / seconds}, f"{takes}; no CPU or shared memory is left for workers")
    if seconds > SLOW:
        return Choice(most, {0: 1 / seconds}, f"{takes}; as many as CPUs and shared memory allow")
    return _best(len(loader), _measured(loader, most))


def _measured(loader: OrderedLoader, most: int) -> dict[int, _Rate]:
    """Measure 0, 1, 2, 4 ... workers, for as long as it helps and is quick."""
    since = time.perf_counter()
    rates = {count: _rate(loader, count) for count in (0, 1)}
    for count in sorted({most, *(2**power for power in range(1, most.bit_length()))} - {1}):
        if time.perf_counter() - since > BUDGET:
            break
        rates[count] = _rate(loader, count)
        if ALIKE * rates[count].batches < max(rates[each].batches for each in rates if each < count):
            break
    return rates


def _best(batches: int, rates: dict[int, _Rate]) -> Choice:
    """Choose among what was measured, for epochs of so many batches."""
    workers = {count: rate for count, rate in rates.items() if count}
    best = max(rate.batches for rate in workers.values())
    count = min(count for count, rate in workers.items() if rate.batches >= ALIKE * best)
    shown = ", ".join(f"{each}: {rate.batches:.3g}" for each, rate in rates.items())
    reason = f"batches/s by number of workers: {shown}"
    seconds, start = batches / rates[0].batches, rates[count].start
    if seconds < PAYS * start:
        count = 0
        reason += f"; an epoch's are made in {seconds:.2g} s, workers start in {start:.2g} s"
    return Choice(count, {each: rate.batches for each, rate in rates.items()}, reason)


def _seconds_a_batch(loader: OrderedLoader) -> tuple[float, int]:
    """Return the seconds that a batch takes to make in this process, and its bytes."""
    batches = iter(_with_workers(loader, 0))
    times: list[float] = []
    size = 0
    while len(times) < 3 and sum(times) < WINDOW and (not times or times[-1] >= QUICK):
        since = time.perf_counter()
        size = max(size, _bytes(next(batches)))
        times.append(time.perf_counter() - since)
    return min(times), size


def _bytes(batch: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))


def _most(loader: OrderedLoader, size: int, free_cpus: int) -> int:
    """Return how many workers there may be: half of the shared memory is for their batches, `size` bytes."""
    try:
        space = os.statvfs(SHARED)
    except OSError:
        return 0
    ahead = loader.loader.prefetch_factor or AHEAD
    fitting = space.f_bavail * space.f_frsize // 2 // (max(size, 1) * ahead)
    return max(0, min(free_cpus, fitting, len(loader)))


def _rate(loader: DataLoader | OrderedLoader, workers: int) -> _Rate:
    """Time batches; the first of each worker, which all come at once, are not counted."""
    since = time.perf_counter()
    with random_state((workers,)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*suggested max number of worker.*")  # that is what is measured
        batches = iter(_with_workers(loader, workers))
        for _ in range(max(workers, 1)):
            next(batches)
        start = time.perf_counter()
        count = _count(batches, until=start + WINDOW)
    return _Rate(count / (time.perf_counter() - start), start - since)


def _count(batches: Iterator[Any], until: float) -> int:
    count = 0
    while time.perf_counter() < until or not count:
        next(batches)
        count += 1
    return count


def _with_workers(loader: DataLoader | OrderedLoader, workers: int) -> DataLoader:
    """Return a copy of a loader, without end, with so many workers."""
    own = copy.copy(loader.loader if isinstance(loader, OrderedLoader) else loader)
    vars(own).update(
        batch_sampler=_Endless(own.batch_sampler),
        num_workers=workers,
        prefetch_factor=(own.prefetch_factor or AHEAD) if workers else None,
        persistent_workers=False,
        _iterator=None,
    )
    return own


class _Endless:
    """A batch sampler over and over."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.batches
