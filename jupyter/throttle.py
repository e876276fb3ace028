"""How long somebody waits between two passwords once some were wrong: longer each time, never for ever."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FORGET = 3600.0  # seconds without a wrong password, after which none counts any more
CALLERS = 10_000  # that are remembered; one more forgets the one who came first


@dataclass
class Count:
    """The wrong passwords of one caller, or of all callers together.

    Args:
        free: How many may be wrong before there is a wait.
        longest: Seconds that a wait has at most.
    """

    free: int
    longest: float
    wrong: int = 0
    last: float = float("-inf")

    def wait(self, now: float) -> float:
        """Return the seconds until the next password is looked at."""
        if now - self.last > FORGET:
            self.wrong = 0
        if self.wrong < self.free:
            return 0.0
        return max(0.0, self.last + min(self.longest, 2.0 ** min(self.wrong - self.free, 30)) - now)

    def add(self, now: float) -> None:
        """Count one more."""
        self.wrong, self.last = self.wrong + 1, now

    def take_back(self) -> None:
        """Count one less."""
        self.wrong = max(0, self.wrong - 1)


class Throttle:
    """Counts wrong passwords: by address and in all; and apart from both by browser that was let in before.

    So whoever guesses from many addresses slows down all strangers, by seconds, and nobody who has been here
    with the same browser. A password that comes too early is not looked at, and makes no wait longer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._callers: dict[str, Count] = {}
        self._strangers = Count(free=50, longest=5.0)

    def ask(self, caller: str, known: bool = False) -> float:
        """Return the seconds that a caller has to wait; with 0 a password counts as wrong until it is right.

        It is counted before it is looked at, so that many at once are no way around the wait.

        Args:
            caller: An address, or the name of a browser.
            known: Whether it is a browser that was let in before.
        """
        now = self._clock()
        count = self._callers.get(caller) or Count(free=5, longest=300.0)
        counts = [count] if known else [count, self._strangers]
        seconds = max(each.wait(now) for each in counts)
        if seconds == 0:
            for each in counts:
                each.add(now)
            self._remember(caller, count)
        return seconds

    def right(self, caller: str, known: bool = False) -> None:
        """Forget what a caller got wrong, and that `ask` counted this password: it was right.

        Args:
            caller: As it was given to `ask`.
            known: The same.
        """
        self._callers.pop(caller, None)
        if not known:
            self._strangers.take_back()

    def _remember(self, caller: str, count: Count) -> None:
        self._callers.pop(caller, None)
        self._callers[caller] = count
        if len(self._callers) > CALLERS:
            del self._callers[next(iter(self._callers))]


def caller(address: str) -> str:
    """Return by what an address counts: itself, or of IPv6 the network of a household, /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
