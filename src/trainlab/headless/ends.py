"""How a headless run ended: what its record says, and its exit code."""

from __future__ import annotations

import re
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
_RAISED = re.compile(r"^Traceback \(most recent call last\):\n(?:(?: .*)?\n)+(\S.*)", re.MULTILINE)


@dataclass(frozen=True)
class ExitStatus:
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


def memory_advice(limit: int, used: int) -> str:
    """Return what to do about a full memory: a smaller batch only where a process of the run took most of it.

    Args:
        limit: Bytes that all processes together may use.
        used: Bytes that the largest process of the run had at its peak.
    """
    if 2 * used >= limit:
        return f"take a smaller batch, or {RAISE}"
    return (
        f"no process of the run took more than {_size(used)}, so others did: end them, take fewer "
        f"num_workers, or {RAISE}"
    )


def from_signal(by: signal.Signals) -> ExitStatus:
    """Return the end of a run that somebody stopped."""
    return ExitStatus("interrupted", {signal.SIGINT: "Ctrl-C"}.get(by, by.name), 128 + by)


def from_error(error: dict[str, Any], memory: MemoryWatch) -> ExitStatus:
    """Return the end by an exception in a cell, given its name, text and traceback."""
    name, value = error["ename"], error["evalue"]
    if name == "KeyboardInterrupt":
        return from_signal(signal.SIGINT)
    if error.get("traceback") == [f"{name}: {value}"]:  # errors.UserError draws itself like this
        return ExitStatus("failed", value, UserError.exit_code)
    return _failed(f"{name}: {value}" if value else name, 1, memory)


def from_exit_code(code: int | None, memory: MemoryWatch, what: str = "the kernel") -> ExitStatus:
    """Return the end of a process that died, by its exit code: a signal where it is negative."""
    if code in (-signal.SIGTERM, -signal.SIGINT):
        return from_signal(signal.Signals(-code))
    reason = f"{what} died (exit code {code})"
    if code == -signal.SIGKILL and (kill := memory.kill()):
        # its peak is known as soon as its end was waited for
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        advice = memory_advice(system.memory_limit() or psutil.virtual_memory().total, used)
        reason = f"out of memory: {what} was {kill}; {advice}"
    elif code == -signal.SIGKILL:
        why = "not for memory" if memory.known else "mostly the machine's memory was full"
        reason = f"{what} died (signal 9): {why}"
    elif code is not None and code < 0:
        reason = f"{what} died (signal {-code}, {signal.Signals(-code).name})"
    return ExitStatus("failed", reason, 1)


def from_script(code: int, printed: str, memory: MemoryWatch) -> ExitStatus:
    """Return the end of a script, by its exit code and by the last that it printed."""
    if code == 0:
        return ExitStatus("finished", None, 0)
    if code < 0:
        return from_exit_code(code, memory, "the script")
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return from_signal(signal.Signals(code - 128))
    raised, lines = _RAISED.findall(printed), printed.strip().splitlines()
    if raised and code == 1:
        return _failed(raised[-1], code, memory)
    return _failed(f"exit code {code}: {lines[-1]}" if lines else f"exit code {code}", code, memory)


def _failed(reason: str, code: int, memory: MemoryWatch) -> ExitStatus:
    if kill := memory.kill():  # a data loader's worker, say, whose end was the exception
        reason = f"{reason} (out of memory: a process was {kill}; take fewer num_workers, or {RAISE})"
    return ExitStatus("failed", reason, code)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
