from __future__ import annotations

import random
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from trainlab import system
from trainlab.training import workers
from trainlab.training.data import OrderedLoader, ordered
from trainlab.training.workers import Choice, choose_workers, measure_workers, threads_for


class Slow(Dataset):
    """Items that take their time without taking a CPU: workers gain the same on any machine."""

    def __init__(self, seconds: float, items: int = 4000) -> None:
        self.seconds, self.items = seconds, items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, row: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.rand(10)


def loader(seconds: float, items: int = 4000) -> OrderedLoader:
    return ordered(DataLoader(Slow(seconds, items), batch_size=4, shuffle=True), seed=0)


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cpus", lambda: 4.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_quick_batches_need_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # on the processor: another process beside this one makes no batch slower
    monkeypatch.setattr(workers, "time", SimpleNamespace(perf_counter=time.process_time))
    since = time.perf_counter()
    choice = choose_workers(loader(0))
    assert choice.workers == 0
    assert "a batch is ready in" in choice.reason
    assert time.perf_counter() - since < 5


def test_as_many_workers_as_make_it_faster() -> None:
    choice = choose_workers(loader(0.02))
    assert choice.workers >= 2
    assert list(choice.rates)[:3] == [0, 1, 2]
    assert choice.rates[2] > 1.3 * choice.rates[0]
    assert str(choice).startswith(f"workers: {choice.workers} (batches/s by number of workers: 0: ")


def test_an_epoch_too_short_for_workers_has_none() -> None:
    choice = choose_workers(loader(0.005, items=8))
    assert choice.workers == 0
    assert "workers start in" in choice.reason


@pytest.mark.parametrize(("processes", "spare", "most"), [(1, 0, 4), (2, 1, 1), (4, 1, 0)])
def test_processes_share_the_cpus(processes: int, spare: int, most: int) -> None:
    choice = choose_workers(loader(0.08), processes=processes, spare=spare)
    assert choice.workers == most
    assert list(choice.rates) == [0]  # too slow to be measured


def test_batches_of_all_workers_fit_into_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = 4 * 10 * 4  # rows, numbers, bytes
    room = namedtuple("Space", "f_bavail f_frsize")(2 * 2 * 2 * batch, 1)  # half of it: two for two workers
    monkeypatch.setattr(workers.os, "statvfs", lambda path: room)
    assert choose_workers(loader(0.08)).workers == 2


def test_a_machine_without_shared_memory_has_no_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers, "SHARED", tmp_path / "missing")
    choice = choose_workers(loader(0.08))
    assert choice.workers == 0
    assert "no CPU or shared memory" in choice.reason


def test_measuring_changes_nothing() -> None:
    theirs = DataLoader(Slow(0.001), batch_size=4, shuffle=True)
    before = torch.get_rng_state(), random.getstate()
    rates = measure_workers(theirs, (0, 2))
    assert set(rates) == {0, 2}
    assert all(rate > 0 for rate in rates.values())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (theirs.num_workers, len(theirs)) == (0, 1000)


def test_a_choice_says_why() -> None:
    assert str(Choice(2, {0: 10.0}, "because")) == "workers: 2 (because)"


def test_threads_are_shared_by_processes_and_leave_workers_their_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [threads_for(), threads_for(2), threads_for(1, 1), threads_for(8, 3)] == [4, 2, 3, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_for(), threads_for(4)] == [2, 1]


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 1), (1.5, 2)])
def test_a_container_has_the_threads_of_its_limit(
    limit: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(system, "cpu_limit", lambda: limit)
    monkeypatch.setattr(system.os, "sched_getaffinity", lambda process: set(range(8)))
    assert threads_for() == expected
