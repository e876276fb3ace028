"""Who runs a trial, and whether that process lives still. No clock is compared with another machine's."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.sweeps.queue import Owner, Trial

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE = "TRAINLAB_GRACE"  # seconds without a beat, seen from another host, after which an owner is dead
_GRACE = 60.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NUMBERING = Path("/proc/self/ns/pid")  # of processes: a link to "pid:[4026531836]"
_TICKS = os.sysconf("SC_CLK_TCK")  # a second


def grace() -> float:
    """Return the seconds after which a silent owner on another host is taken for dead."""
    try:
        return max(1.0, float(os.environ.get(GRACE, _GRACE)))
    except ValueError:
        return _GRACE


def token() -> str:
    """Return what tells this process from all others: the boot, the numbering of processes, and its own.

    Containers that share the machine's name (network_mode: host) number their processes apart.
    """
    boot = _BOOT.read_text()[:8] if _BOOT.exists() else ""
    return f"{boot}.{_NUMBERING.readlink().name[5:-1]}-{token_hex(8)}"


def own(slot: str, mark: str) -> Owner:
    """Return this process as the owner of a trial in one of its slots; `mark` is its `token`."""
    return Owner(socket.gethostname(), os.getpid(), started(os.getpid()) or 0.0, slot, mark)


def started(pid: int) -> float | None:
    """Return when a process began, in seconds since the boot, which no clock changes; None where it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19]) / _TICKS
    except (OSError, IndexError, ValueError):
        return None


def is_gone(owner: Owner, mark: str, *, one_machine: bool) -> bool | None:
    """Tell whether an owner's process has ended, None where that can't be seen from here.

    Args:
        owner: The trial's.
        mark: This process's `token`.
        one_machine: Whether all owners are on this machine, as with a queue in a file.
    """
    theirs, ours = owner.token.rpartition("-")[0], mark.rpartition("-")[0]
    if theirs == ours:
        return started(owner.pid) != owner.started
    return True if one_machine and theirs.split(".")[0] != ours.split(".")[0] else None


def refuse_living(trials: Iterable[Trial], *, one_machine: bool) -> None:
    """Raise UserError where a process that lives here runs one of some trials."""
    ours = token()
    for each in trials:
        if each.owner and is_gone(each.owner, ours, one_machine=one_machine) is False:
            raise UserError(
                f"Process {each.owner.pid} runs trial {each.number}, and would go on in the old database. "
                "Stop that worker first."
            )


@dataclass
class Silence:
    """How long each owner has been silent, by this process's own monotonic clock.

    Only time in which the database answered counts: while it is gone nobody's beat can be seen.
    """

    grace: float
    _seen: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)
    _last: float = 0.0

    def looked(self) -> None:
        """Begin a look at all trials that are running."""
        now = time.monotonic()
        if now - self._last > self.grace / 2:
            self._seen = {key: (sign, now) for key, (sign, _) in self._seen.items()}
        self._last = now

    def too_long(self, sweep: str, trial: Trial) -> bool:
        """Tell whether a trial's owner has shown no sign of life for the grace."""
        sign = f"{trial.owner.token if trial.owner else ''} {trial.beat} {trial.attempts}"
        before, since = self._seen.get((sweep, trial.number), ("", 0.0))
        if sign != before:
            since = self._last
            self._seen[sweep, trial.number] = sign, since
        return self._last - since > self.grace
