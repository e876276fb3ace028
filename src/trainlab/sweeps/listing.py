"""All sweeps side by side: how far each is, whether it goes on, and the best value so far."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trainlab import extras, paths
from trainlab.cleaning import json_of, printable
from trainlab.errors import UserError
from trainlab.runs.display import Column, age, short, table_text
from trainlab.sweeps import definition, owners
from trainlab.sweeps.display import ENDED, STATES, ranked

if TYPE_CHECKING:
    from pathlib import Path

    from rich.text import Text

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Trial


@dataclass(frozen=True)
class Listed:
    """A sweep as `listing` shows it: what is known of it, or the `fault` why it can't be read."""

    name: str
    definition: Definition | None = None
    trials: Sequence[Trial] = ()
    created: float | None = None  # seconds since 1970
    fault: str = ""


def found(logs: Path | None = None) -> list[Listed]:
    """Return all sweeps under `logs/.sweeps`, the newest first; one that can't be read has its fault.

    A database that does not answer is asked once, however many sweeps it holds.
    """
    from trainlab.sweeps.faults import QueueError
    from trainlab.sweeps.queue import Queue

    place = (logs or paths.logs()) / definition.SWEEPS
    silent: dict[str | None, str] = {}  # databases, with what they failed with
    sweeps = []
    try:
        folders = [*place.iterdir()] if place.is_dir() else []
    except OSError as error:
        raise UserError(f"{place} can't be read: {error.strerror}. Its owner: ls -ld {place}") from None
    for folder in folders:
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        known: Definition | None = None
        trials: list[Trial] = []
        fault = ""
        try:
            known = definition.load(folder.name, logs)
            if known.at in silent:
                fault = silent[known.at]
            else:
                queue = Queue.open(known, logs=logs)
                try:
                    trials = queue.trials()
                finally:
                    queue.close()
        except UserError as error:
            fault = str(error)
            if known is not None and known.at and isinstance(error, QueueError) and error.passing:
                silent[known.at] = fault
        sweeps.append(Listed(folder.name, known, trials, _created(folder), fault))
    return sorted(sweeps, key=lambda each: each.created or 0.0, reverse=True)


class Lately:
    """All sweeps, as they were a moment ago: their databases are read once for all who look."""

    PAUSE = 1.5  # seconds between two looks

    def __init__(self, logs: Path) -> None:
        self._logs, self._lock = logs, threading.Lock()
        self._found: list[Listed] = []
        self._looked = -math.inf

    def look_again(self) -> None:
        """Let the next call read them anew."""
        self._looked = -math.inf

    def __call__(self) -> list[Listed]:
        """Return them, the newest first; none where there is no folder of runs."""
        extras.need("optuna", "A sweep")
        with self._lock:
            if time.monotonic() - self._looked > self.PAUSE:
                self._found = found(self._logs)
                self._looked = time.monotonic()
            return self._found


def _created(folder: Path) -> float | None:
    """Return when a sweep was ordered: its copy of the program never changes."""
    with suppress(OSError):
        return min((each.lstat().st_mtime for each in folder.iterdir()), default=None)
    return None


def listing(sweeps: Sequence[Listed]) -> Text:
    """Return all sweeps as a table: state, trials by their states, the best value, age.

    One that can't be read stands there as that, with the reason in a line below.
    """
    from rich.text import Text

    of = [Counter(each.state for each in sweep.trials) for sweep in sweeps]
    known = [("trials", [str(len(each.trials)) for each in sweeps])]
    known += [(name, [str(each[name] or "") for each in of]) for name in (*ENDED, "running", "waiting")]
    numbers = [Column(title, cells, right=True) for title, cells in known if any(cells)]
    bests = [ranked(each.definition, each.trials)[:1] if each.definition else [] for each in sweeps]
    goals = [printable(each.definition.goal) if each.definition else "" for each in sweeps]
    started = [None if each.created is None else datetime.fromtimestamp(each.created, UTC) for each in sweeps]
    shown = [
        Column("sweep", [printable(each.name) for each in sweeps]),
        Column("state", [state(each) for each in sweeps]),
        *numbers,
        Column("best", [short(each[0].value) if each else "" for each in bests], right=True),
        Column("goal", goals),
        Column("age", [age(each) for each in started], right=True),
    ]
    faults = (f"{each.name} can't be read: {' '.join(each.fault.split())}" for each in sweeps if each.fault)
    return Text("\n").join([table_text(shown), *(Text(printable(each)) for each in faults)])


def as_json(sweeps: Sequence[Listed]) -> str:
    """Return all sweeps as a list of JSON objects with what `listing` shows."""
    found = []
    for each in sweeps:
        best = ranked(each.definition, each.trials)[:1] if each.definition else []
        of = Counter(trial.state for trial in each.trials)
        found.append(
            {
                "sweep": each.name,
                "state": state(each),
                "fault": each.fault or None,
                "trials": len(each.trials),
                "by_state": {str(name): of[name] for name in STATES},
                "best": best[0].value if best else None,
                "goal": each.definition.goal if each.definition else None,
                "created": each.created,
            }
        )
    return json_of(found)


def state(sweep: Listed) -> str:
    """Return whether a sweep goes on, and where; a trial whose process here is gone runs no more."""
    if sweep.fault:
        return "unreadable"
    running = [each.owner for each in sweep.trials if each.state == "running" and each.owner]
    mark, one_machine = owners.token(), sweep.definition is not None and sweep.definition.at is None
    places = dict.fromkeys(
        "running here" if each.host == socket.gethostname() else printable(f"running on {each.host}")
        for each in sorted(running, key=lambda owner: owner.host)
        if not owners.is_gone(each, mark, one_machine=one_machine)
    )
    if places:
        return ", ".join(places)
    if any(each.state in ("running", "waiting") for each in sweep.trials):
        return "stopped"
    return "done"
