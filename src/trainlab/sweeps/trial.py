"""A trial, and who runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["waiting", "running", "finished", "pruned", "failed"]
Ended = Literal["finished", "pruned", "failed"]
# what the headless runner says of a script or kernel that somebody has killed, and not for memory
KILLED = re.compile(r"died \(signal 9\)")
_SEED = re.compile(r"-s(\d+)$")  # at the end of a run's name, which of the trial's seeds it has


@dataclass(frozen=True)
class Owner:
    """Who runs a trial: a process, told from an earlier one of the same number, and its slot."""

    host: str
    pid: int
    started: float  # seconds since the boot (owners.started)
    slot: str
    token: str  # random: tells two lives apart


@dataclass(frozen=True)
class Trial:
    """One setting of a sweep, and what has become of it."""

    number: int
    state: State
    settings: dict[str, Any]  # those sampled so far
    owner: Owner | None = None
    runs: tuple[str, ...] = ()  # 'experiment/run' relative to logs/, one a seed, in order
    attempts: int = 0  # times taken
    value: float | None = None
    reason: str = ""
    beat: str | None = None


def seed_named(run: str) -> int | None:
    """Return which of a trial's several seeds a run's name says that it has; None where it says nothing."""
    named = _SEED.search(run)
    return int(named[1]) if named else None
