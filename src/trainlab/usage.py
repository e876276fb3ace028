"""What a training uses of the machine: its container's CPU time, memory and disk.

Outside a container there is no group of its own: there it is this process with its children.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psutil

from trainlab import limits

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Processes:
    """This process and its children.

    Memory is the sum of their resident sets: what forked workers share counts for each of them.
    """

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._all = [self._own]

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far, in seconds, with that of children which have ended."""
        self._look()
        return sum(sum(times[:4]) for times in self._each(psutil.Process.cpu_times))

    def memory_bytes(self) -> int | None:
        """Return the memory in use, in bytes: of the children seen when the others were asked last."""
        return sum(memory.rss for memory in self._each(psutil.Process.memory_info))

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return the bytes read from and written to disks so far."""
        self._look()
        counts = self._each(psutil.Process.io_counters)
        return sum(each.read_bytes for each in counts), sum(each.write_bytes for each in counts)

    def _look(self) -> None:
        """Look for children; that costs a look at every process of the machine."""
        self._all = [self._own, *self._own.children(recursive=True)]

    def _each(self, read: Callable[[psutil.Process], T]) -> list[T]:
        """Return what each process tells; one that has ended meanwhile tells nothing."""
        told = []
        for each in self._all:
            with suppress(psutil.Error):
                told.append(read(each))
        return told


class Container:
    """This process's control group, that of its container."""

    def __init__(self) -> None:
        self._processes = Processes() if limits.disk_bytes() is None else None

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far, in seconds."""
        return limits.cpu_seconds()

    def memory_bytes(self) -> int | None:
        """Return the memory in use, in bytes, without file cache that gives way."""
        return limits.memory_used()

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return the bytes read from and written to disks so far; of the processes if the group has none."""
        return self._processes.disk_bytes() if self._processes else limits.disk_bytes()


def meter() -> Container | Processes:
    """Return what measures this training: its container, or its processes where there is none."""
    return Container() if limits.in_container() else Processes()


def cpus() -> float:
    """Return how many CPUs this process may use: those it may run on, and its group's limit."""
    allowed = float(len(os.sched_getaffinity(0)))
    return min(allowed, limits.cpu_limit() or allowed)
