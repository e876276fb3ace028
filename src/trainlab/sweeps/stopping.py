"""Stopping a sweep that is led on this machine."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.sweeps.definition import LEADER, folder, load

if TYPE_CHECKING:
    from pathlib import Path

GLANCE = 0.2  # seconds between two looks
REPORTED_AFTER = 5.0  # seconds of waiting, until it is printed what for


def stop(name: str, logs: Path | None = None) -> None:
    """End the process that leads a sweep, and wait for that: its runs save, and their trials wait again.

    Raises UserError where there is no such sweep, nobody leads it, or the process is out of reach.
    """
    load(name, logs)
    place = folder(name, logs)
    if not lock.taken(place, LEADER):
        raise UserError(f"Nobody leads the sweep {name}. All that are led: trainlab sweep list")
    leader = next(lock.holders(place, [LEADER]), None)  # of another user's the files can't be seen
    if leader is None:
        raise UserError(
            f"The sweep {name} is led, but not here: in another container, on another machine or by another "
            "user. Stop it there."
        )
    with suppress(psutil.NoSuchProcess):
        psutil.Process(leader).send_signal(signal.SIGTERM)
    reported = time.monotonic() + REPORTED_AFTER
    while lock.taken(place, LEADER):
        if time.monotonic() > reported:
            reported = float("inf")
            print(f"its runs save checkpoints ... (without saving: kill -9 {leader})", file=sys.stderr)
        time.sleep(GLANCE)
