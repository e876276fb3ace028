"""Who works on sweeps: `lead` is behind `trainlab sweep`, `join` behind `trainlab worker`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab import paths
from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.sweeps import definition, pruning, storage
from trainlab.sweeps.definition import LEADER
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.joining import Joined
from trainlab.sweeps.loop import Worker, say
from trainlab.sweeps.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.slots import Slots


def lead(
    ordered: Definition,
    *,
    slots: Slots,
    at: str | None = None,
    logs: Path | None = None,
    show: Callable[[Queue, bool], None] | None = None,
) -> int:
    """Work through a sweep until each trial has ended: create or open its queue, fill slots, adopt, requeue.

    The sweep's folder must be there (`definition.create`). A second call after any end goes on with it.

    Args:
        ordered: The sweep, as `definition.load` returns it.
        slots: Where its trials run: `slots.find(count, per_gpu=..., wait=...)`.
        at: The database's address with its password, where the definition's has none.
        logs: The folder of runs; by default `logs/`.
        show: Called with the queue, and whether this is the last time: each second, and once at the end.

    Returns:
        0 where a trial has finished, 1 where none has, 2 where its program has changed; 130 and 143 after
        Ctrl-C and SIGTERM.

    Raises:
        UserError: Another process leads the sweep; nothing was started then.
    """
    logs = logs_folder(logs)
    with leading(ordered, at, logs) as queue:
        worker = Worker(slots, logs, [queue], show and (lambda last: show(queue, last)))
        return worker.run(until_empty=True) or outcome(queue)


@contextlib.contextmanager
def leading(ordered: Definition, at: str | None, logs: Path) -> Iterator[Queue]:
    """Be the one process that leads a sweep; yield its queue, which is made where the sweep has not begun."""
    held = definition.led(ordered.name, logs)
    if held is None:
        number = leader(ordered.name, logs)
        who = f"process {number}" if number else "a process out of reach"
        raise UserError(
            f"The sweep {ordered.name} is led by {who} already. Stop that first: trainlab sweep stop "
            f"{ordered.name}. Or run its trials beside it: trainlab worker {ordered.name}"
            + (f" --join {ordered.at}" if ordered.at else "")
        )
    try:
        yield _queue(ordered, at, logs)
    finally:
        held.release()


def outcome(queue: Queue) -> int:
    """Return the exit code of a sweep that has ended: 0 where a trial has finished, 1 where none has."""
    counted = pruning.counted(queue.definition.prune)
    return int(all(each.state not in counted or each.value is None for each in queue.trials()))


def leader(name: str, logs: Path | None = None) -> int | None:
    """Return the process that leads a sweep, None where none does, or none that can be seen from here."""
    return next(lock.holders(definition.folder(name, logs), [LEADER]), None)


def join(
    at: str | None = None,
    *,
    slots: Slots,
    names: Sequence[str] = (),
    until_empty: bool = False,
    logs: Path | None = None,
) -> int:
    """Take trials of the sweeps at an address, and run them here, beside whoever leads them.

    Args:
        at: The database's address; None for the sweeps that have none, whose queue lies in `logs/.sweeps`.
        slots: Where trials run here.
        names: Of sweeps; all of them by default, those made later too.
        until_empty: Whether to end when no trial waits or runs anywhere, as before a sweep has begun.
        logs: The folder of runs; by default `logs/`.

    Returns:
        0, 2 where the programs of all sweeps have changed, or 130 and 143 after Ctrl-C and SIGTERM.

    Raises:
        UserError: None of the sweeps that are named can be worked on, or the database does not answer at the
            start.
    """
    logs = logs_folder(logs)
    if at is not None:
        storage.check_shared(at, logs)
    joined = Joined(at, names, logs, say)
    return Worker(slots, logs, joined.look(), joined=joined).run(until_empty=until_empty)


def logs_folder(logs: Path | None) -> Path:
    """Return the folder of runs, `logs/` by default; this process and those that it starts look there."""
    found = (logs or paths.logs()).resolve()
    os.environ["TRAINLAB_LOGS"] = str(found)
    return found


def _queue(ordered: Definition, at: str | None, logs: Path) -> Queue:
    """Open a sweep's queue, or make it where the sweep has not begun."""
    try:
        return Queue.open(ordered, at, logs)
    except QueueError as error:
        if error.passing or definition.has_runs(ordered.name, logs):
            raise
    return Queue.create(ordered, at, logs)
