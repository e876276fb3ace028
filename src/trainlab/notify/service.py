"""Watches and tells, until somebody ends it: `trainlab notify`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.notify.send import Channel
from trainlab.notify.watch import Waiting, Watcher
from trainlab.run import lock
from trainlab.run.signals import describe
from trainlab.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from trainlab.notify.watch import Memory, SweepEnd

LOCK = ".notify.lock"  # in logs/: two watchers would tell everything twice
GLANCE = 5.0  # seconds between two looks at the runs at work
_ATTENDS_EVERY = 15.0  # seconds between two tries to take the place of another watcher
_ON_ITS_WAY = 0.3  # seconds between two looks at messages under way
_WORST = 60.0  # seconds until the next look after one that failed


def run(
    logs: Path,
    addresses: Sequence[str],
    ended_sweeps: Callable[[Collection[str]], Mapping[str, SweepEnd]],
) -> None:
    """Watch the runs of a folder and tell each address, until SIGTERM or Ctrl-C."""
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signals call it
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    held = _alone(logs, ended)
    try:
        if not ended.is_set():
            say(f"watching the runs in {logs}")
            _watch(Watcher(logs, ended_sweeps), addresses, ended)
    finally:
        if held is not None:
            held.release()


def _alone(logs: Path, ended: threading.Event) -> lock.Lock | None:
    """Wait until nobody else tells of these runs; None where the folder takes no lock."""
    said = False
    while not ended.is_set():
        try:
            held = lock.hold(logs, LOCK)
        except FileNotFoundError:
            held = None  # logs/ comes with the first run
        except OSError:
            return None
        if held is not None:
            return held
        if not said and logs.is_dir():
            say(f"somebody else tells already what happens in {logs}; waiting for the end of that")
            said = True
        ended.wait(_ATTENDS_EVERY)
    return None


def _watch(watcher: Watcher, addresses: Sequence[str], ended: threading.Event) -> None:
    channels = [Channel(number, address, say) for number, address in enumerate(addresses)]
    every = [each.number for each in channels]
    pause, said = 0.0, ""
    while True:
        try:
            news = watcher.look(pause)
        except Exception as error:  # a folder that is gone for a while, say: it comes back
            if said != (said := str(error) if isinstance(error, UserError) else describe(error)):
                say(said)
            pause = _WORST
        else:
            pause, said = GLANCE, ""
            assert watcher.memory is not None, "it has looked"
            watcher.memory.waiting += [Waiting(news=each, channels=every.copy()) for each in news]
            watcher.save()  # before anything is sent: whatever ends us now, it is not lost
        if _told(watcher, channels, ended, time.monotonic() + pause):
            break
    if watcher.memory is not None:
        for each in channels:
            each.end(watcher.memory.waiting)
        _forget(watcher.memory, channels)
        watcher.save()


def _told(watcher: Watcher, channels: Sequence[Channel], ended: threading.Event, until: float) -> bool:
    """Let the channels send until the next look is due; return whether that is not to come."""
    while True:
        if watcher.memory is not None:
            for each in channels:
                each.go_on(watcher.memory.waiting, time.time())
            _forget(watcher.memory, channels)
            watcher.save()
        left = until - time.monotonic()
        if left <= 0:
            return ended.is_set()
        if ended.wait(min(left, _ON_ITS_WAY) if any(each.sends for each in channels) else left):
            return True


def _forget(memory: Memory, channels: Sequence[Channel]) -> None:
    """Drop what all channels have told; of channels that are there no more nothing waits."""
    numbers = {each.number for each in channels}
    memory.waiting = [each for each in memory.waiting if numbers & set(each.channels)]


def say(text: str) -> None:
    """Print a line for whoever reads the service's log."""
    with suppress(OSError):
        print(f"trainlab notify: {printable(without_secrets(text))}", file=sys.stderr, flush=True)
