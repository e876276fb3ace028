"""Brings messages to channels, each an address that Apprise understands: mail, Slack, ntfy, Matrix ...

An address holds a key. It is in no command line, no environment of another process, no output and no file:
it goes to the process that sends through a pipe. A channel that fails is tried again, with pauses that grow;
it stops no other one, and never the watcher.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from trainlab import secrets
from trainlab.notify import channel
from trainlab.notify.news import message
from trainlab.notify.watch import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainlab.notify.news import News

VARIABLE = "NOTIFY"
PATIENCE = 60.0  # seconds for one message; then the process that sends it is ended
FAREWELL = 3.0  # seconds that the watcher's own end waits for a message under way
PAUSE = 30.0  # seconds from one message of a channel to its next: what happens meanwhile is one message
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 900.0  # seconds after a failure, doubled with each further one
OLDEST = 2 * 86400.0  # seconds: what could not be sent for so long is counted and dropped
MOST = 1000  # things that wait for a channel at most
_PARTED = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://.")

WHAT_HAPPENED = {
    channel.SENT: "sent",
    channel.FAILED: "not sent: no connection, or the service refused it",
    channel.NOT_UNDERSTOOD: "not sent: Apprise does not understand the address",
    channel.MISSING: 'not sent: Apprise is not installed: pip install "trainlab[notify]"',
    channel.REFUSED + 3: "not sent: the server sends elsewhere (3xx)",
    channel.REFUSED + 4: "not sent: the server refuses it (4xx): is the key right?",
    channel.REFUSED + 5: "not sent: the server has a fault of its own (5xx)",
}


def addresses(text: str) -> list[str]:
    """Return the addresses in `NOTIFY`, which are parted by blanks or commas."""
    return [each.strip(" \t\r\n,") for each in _PARTED.split(text.strip()) if each.strip(" \t\r\n,")]


def taken() -> list[str]:
    """Take the addresses out of the environment: nothing that is started from here inherits them."""
    return known(os.environ.pop(VARIABLE, ""))


def known(text: str) -> list[str]:
    """Return the addresses in a text, and let nothing that this process says hold one of them."""
    found = addresses(text)
    secrets.remember([part for each in found for part in secrets.of_address(each)])
    return found


def kind(address: str) -> str:
    """Return what may be shown of an address: 'slack://…'."""
    found = _KIND.match(address)
    return f"{found[1].lower()}://…" if found else "no address (expected such as ntfy://…)"


class Sending:
    """One message on its way to one address."""

    def __init__(self, address: str, title: str, body: str, patience: float = PATIENCE) -> None:
        self._until = time.monotonic() + patience
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", channel.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C for the watcher lets a message arrive
            env={key: value for key, value in os.environ.items() if key != VARIABLE},
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as order:  # it fits into a pipe's buffer
            order.write(json.dumps({"address": address, "title": title, "body": body}).encode())

    def code(self) -> int | None:
        """Return how it went, None while it is under way; what takes too long is ended, and has failed."""
        code = self._process.poll()
        if code is None and time.monotonic() > self._until:
            self._end()
            return channel.FAILED
        return code

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return how it went, once it is over, or so many seconds are."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        self._end()
        return channel.FAILED

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


class Channel:
    """One address: what it was asked to tell, and when it may be tried again."""

    def __init__(self, number: int, address: str, say: Callable[[str], None]) -> None:
        self.number, self._address, self._say = number, address, say
        self._name = f"channel {number + 1} ({kind(address)})"
        self._next, self._failures, self._lost = 0.0, 0, 0
        self._sending: Sending | None = None
        self._told: list[News] = []

    @property
    def sends(self) -> bool:
        """Tell whether a message is under way."""
        return self._sending is not None

    def go_on(self, waiting: list[Waiting], now: float) -> None:
        """See what became of the message under way, or send the next one; never waits.

        What was sent is taken out of `waiting`.
        """
        if self._sending is not None:
            code = self._sending.code()
            if code is None:
                return
            self._sending = None
            self._ended(code, waiting)
        mine = [each for each in waiting if self.number in each.channels]
        dropped = [each for each in mine if now - each.news.at > OLDEST] + mine[:-MOST]
        for each in dropped:
            if self.number in each.channels:
                each.channels.remove(self.number)
                self._lost += 1
        self._told = [each.news for each in mine if self.number in each.channels]
        if self._told and time.monotonic() >= self._next:
            try:
                self._sending = Sending(self._address, *message(self._told, self._lost))
            except OSError:  # no memory, no processes
                self._ended(channel.FAILED, waiting)

    def _ended(self, code: int, waiting: list[Waiting]) -> None:
        if code == channel.SENT:
            if self._failures:
                self._say(f"{self._name}: sent, after {self._failures} failures")
            self._failures = self._lost = 0
            told = {id(each) for each in self._told}
            for each in waiting:
                if id(each.news) in told and self.number in each.channels:
                    each.channels.remove(self.number)
            self._next = time.monotonic() + PAUSE
            return
        pause = min(_FIRST_PAUSE * 2 ** min(self._failures, 10), _LONGEST_PAUSE)
        if not self._failures:  # once, and not at each attempt
            self._say(f"{self._name}: {WHAT_HAPPENED.get(code, WHAT_HAPPENED[channel.FAILED])}; tried again")
        self._failures += 1
        self._next = time.monotonic() + pause

    def end(self, waiting: list[Waiting]) -> None:
        """Wait a moment for a message under way, then leave off."""
        if self._sending is not None:
            self._ended(self._sending.wait(FAREWELL), waiting)
            self._sending = None


def test(found: Sequence[str]) -> list[tuple[str, int]]:
    """Send a message to each address; return the kind of each, and how that went."""
    title, body = "trainlab: a test", "trainlab can tell you here what happens to your runs."
    under_way = [(kind(each), Sending(each, title, body)) for each in found]
    return [(name, sending.wait()) for name, sending in under_way]
