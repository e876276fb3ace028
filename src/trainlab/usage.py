"""What a training uses of the machine: its container's CPU time, memory and disk.

Outside a container there is no group of its own: there it is this process with its children.
"""

from __future__ import annotations

import os

import psutil

from trainlab import limits


class Processes:
    """This process and its children.

    Memory is the sum of their resident sets: what forked workers share counts for each of them.
    """

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._all = [self._own]

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far, in seconds, with that of children which have ended."""
        return sum(sum(each.cpu_times()[:4]) for each in self._running())

    def memory_bytes(self) -> int | None:
        """Return the memory in use, in bytes: of the children seen when the others were asked last."""
        return sum(each.memory_info().rss for each in self._all if each.is_running())

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return the bytes read from and written to disks so far."""
        counts = [each.io_counters() for each in self._running()]
        return sum(each.read_bytes for each in counts), sum(each.write_bytes for each in counts)

    def _running(self) -> list[psutil.Process]:
        """Look for children; that costs a look at every process of the machine."""
        self._all = [self._own, *self._own.children(recursive=True)]
        return self._all


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
