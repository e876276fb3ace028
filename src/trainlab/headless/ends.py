"""How a headless run ended: what its record says, and its exit code."""

from __future__ import annotations

import resource
import signal
from dataclasses import dataclass
from typing import Any

import psutil

from trainlab import system
from trainlab.errors import UserError
from trainlab.run.record import Status

MIB, GIB = 1 << 20, 1 << 30
RAISE = "raise JUPYTER_MEMORY in .env"


@dataclass(frozen=True)
class End:
    """How a run ended, and the exit code that says so."""

    status: Status
    reason: str | None
    code: int


class MemoryWatch:
    """Knows whether the kernel has killed a process of this container for memory since the watch was made."""

    def __init__(self) -> None:
        self._before = system.oom_kills()

    @property
    def known(self) -> bool:
        """Whether such kills are counted here: where they are, a death without one had another cause."""
        return self._before is not None

    def kill(self) -> str | None:
        """Return 'killed at the memory limit of 600 MiB', or None where no kill is known of."""
        now = system.oom_kills()
        if self._before is None or now is None or now <= self._before:
            return None
        limit = system.memory_limit()
        return (
            f"killed at the memory limit of {_size(limit)}" if limit else "killed as the machine's was full"
        )


def mend(limit: int | None, used: int) -> str:
    """Return what to do about a full memory: a smaller batch only where a process of the run took most of it.

    Args:
        limit: Bytes that all processes together may use.
        used: Bytes that the largest process of the run had at its peak.
    """
    if limit is None or 2 * used >= limit:
        return f"take a smaller batch, or {RAISE}"
    return (
        f"no process of the run took more than {_size(used)}, so others did: end them, take fewer "
        f"num_workers, or {RAISE}"
    )


def _mend() -> str:
    """Return what to do, once the kernel has ended: its peak is known as soon as its end was waited for."""
    total = system.memory_limit() or psutil.virtual_memory().total
    return mend(total, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def by_signal(by: signal.Signals) -> End:
    """Return the end of a run that somebody stopped."""
    return End("interrupted", {signal.SIGINT: "Ctrl-C"}.get(by, by.name), 128 + by)


def by_error(error: dict[str, Any], memory: MemoryWatch) -> End:
    """Return the end by an exception in a cell, given its name, text and traceback."""
    name, value = error["ename"], error["evalue"]
    if name == "KeyboardInterrupt":
        return by_signal(signal.SIGINT)
    if error.get("traceback") == [f"{name}: {value}"]:  # errors.UserError draws itself like this
        return End("failed", value, UserError.exit_code)
    reason = f"{name}: {value}" if value else name
    if kill := memory.kill():  # a data loader's worker, say, whose end was the exception
        reason = f"{reason} (out of memory: a process was {kill}; take fewer num_workers, or {RAISE})"
    return End("failed", reason, 1)


def by_death(exit_code: int | None, memory: MemoryWatch) -> End:
    """Return the end of a run whose kernel died, by its exit code: a signal where it is negative."""
    if exit_code == -signal.SIGTERM:
        return by_signal(signal.SIGTERM)
    if exit_code == -signal.SIGKILL and (kill := memory.kill()):
        return End("failed", f"out of memory: the kernel was {kill}; {_mend()}", 1)
    if exit_code == -signal.SIGKILL:
        killed = "the kernel died (signal 9)"
        why = "not for memory" if memory.known else "mostly the machine's memory was full"
        return End("failed", f"{killed}: {why}", 1)
    if exit_code is not None and exit_code < 0:
        return End("failed", f"the kernel died (signal {-exit_code}, {signal.Signals(-exit_code).name})", 1)
    return End("failed", f"the kernel died (exit code {exit_code})", 1)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
