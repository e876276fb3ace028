"""A sweep that goes on: as what it was, with more trials if need be, and nothing changed where it can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.sweeps import definition, order
from trainlab.sweeps.definition import Definition
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainlab.sweeps.order import Order


def resumed(  # noqa: PLR0913
    name: str,
    told: Order,
    *,
    more: int = 0,
    agreed: Callable[[str], None],
    at: str | None = None,
    logs: Path | None = None,
) -> tuple[Definition, list[str]]:
    """Return a sweep that goes on.

    Args:
        name: The sweep's.
        told: What the command line says of it: nothing, or the same as when it was made.
        more: How many trials more it is to have.
        agreed: Called with what speaks against it where the program has changed; raises UserError, or not.
        at: The database's address with its password, where the definition's has none.
        logs: The folder of runs; by default `logs/`.

    Returns:
        The sweep, and sentences on what was found.

    Raises:
        UserError: It can't go on, and nothing was changed; or its database does not answer.
    """
    known = definition.load(name, logs)
    order.check_same(known, told)
    if at is not None and known.at is None:
        raise UserError(
            f"--at {at}: the sweep {name} lies in {definition.folder(name, logs)}, and no head keeps it. "
            "Leave --at out."
        )
    held = definition.led(name, logs)
    if held is None:
        raise UserError(f"The sweep {name} goes on already. Stop it first: trainlab sweep stop {name}")
    try:
        program = definition.program_file(known)
        if definition.digest(program) != known.code:
            copy = definition.folder(name, logs) / program.name
            agreed(
                f"{program} has changed since the sweep {name} was made, whose trials can be compared "
                f"only if it does the same still. The copy from then: {copy}."
            )
        if more and known.method == "grid":
            raise UserError(f"--trials +{more}: a grid has all of its combinations. Start a new sweep.")
        return _filled(known, more, at, logs) if known.method != "grid" else (known, [])
    finally:
        held.release()


def _filled(known: Definition, more: int, at: str | None, logs: Path | None) -> tuple[Definition, list[str]]:
    """Add trials: first to what was ordered, then to the queue, so that what is cut short is made up for.

    Whoever repeats an order that was cut short means the same trials.
    """
    try:
        queue = Queue.open(known, at, logs)
    except QueueError as error:
        if error.passing or definition.has_runs(known.name, logs):
            raise
        return (definition.extend(known.name, more, logs) if more else known), []  # it has not begun
    try:
        there = queue.count()
        missing = max(0, known.trials - there)
        if more and more != missing:
            known = definition.extend(known.name, more, logs)
        if known.trials > there:
            queue.add(known.trials - there)
        if not missing:
            return known, []
        return known, [f"{missing} trials of an earlier --trials, which was cut short, are made now."]
    finally:
        queue.close()
