"""All sweeps side by side: how far each is, whether it goes on, and the best value so far."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil

from trainlab.cleaning import printable
from trainlab.runs.display import Column, age, short, table_text
from trainlab.sweeps.display import ENDED, ranked

if TYPE_CHECKING:
    from rich.text import Text

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Owner, Trial

_SAME_START = 2.0  # seconds by which a process's start may be told apart twice


@dataclass(frozen=True)
class Listed:
    """A sweep as `listing` shows it: what is known of it, or the `fault` why it can't be read."""

    name: str
    definition: Definition | None = None
    trials: Sequence[Trial] = ()
    created: float | None = None  # seconds since 1970
    fault: str = ""


def listing(sweeps: Sequence[Listed]) -> Text:
    """Return all sweeps as a table: state, trials by their states, the best value, age.

    One that can't be read stands there with the reason in place of them.
    """
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
    return table_text(shown)


def as_json(sweeps: Sequence[Listed]) -> str:
    """Return all sweeps as a list of JSON objects with what `listing` shows."""
    found = []
    for each in sweeps:
        best = ranked(each.definition, each.trials)[:1] if each.definition else []
        found.append(
            {
                "sweep": each.name,
                "state": state(each),
                "trials": len(each.trials),
                **Counter(trial.state for trial in each.trials),
                "best": best[0].value if best else None,
                "goal": each.definition.goal if each.definition else None,
                "created": each.created,
            }
        )
    return json.dumps(found, indent=2, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def state(sweep: Listed) -> str:
    """Return whether a sweep goes on, and where; a trial whose process here is gone runs no more."""
    if sweep.fault:
        return printable(f"unreadable: {' '.join(sweep.fault.split())}")
    owners = [each.owner for each in sweep.trials if each.state == "running" and each.owner]
    places = dict.fromkeys(
        "running here" if each.host == socket.gethostname() else printable(f"running on {each.host}")
        for each in sorted(owners, key=lambda owner: owner.host)
        if not gone(each)
    )
    if places:
        return ", ".join(places)
    if any(each.state in ("running", "waiting") for each in sweep.trials):
        return "stopped"
    return "done"


def gone(owner: Owner) -> bool | None:
    """Tell whether an owner's process has ended; None where that can't be seen from this host."""
    if owner.host != socket.gethostname():
        return None
    with suppress(psutil.Error):
        return abs(psutil.Process(owner.pid).create_time() - owner.started) > _SAME_START
    return True
