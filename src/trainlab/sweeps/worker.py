"""The loop that fills slots with a sweep's trials: `lead` behind `trainlab sweep`, `join` behind `worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Queue
    from trainlab.sweeps.slots import Slots

LEADER = ".leader.lock"  # in the sweep's folder: held by the process that leads it


def lead(
    definition: Definition,
    *,
    slots: Slots,
    at: str | None = None,
    logs: Path | None = None,
    show: Callable[[Queue, bool], None] | None = None,
) -> int:
    """Work through a sweep until each trial has ended: create or open its queue, fill slots, adopt, requeue.

    The sweep's folder must be there (`definition.create`). A second call after any end goes on with it.

    Args:
        definition: The sweep, as `definition.load` returns it.
        slots: Where its trials run: `slots.find(count, per_gpu=..., wait=...)`.
        at: The database's address with its password, where the definition's has none.
        logs: The folder of runs; by default `logs/`.
        show: Called with the queue, and whether this is the last time: each second, and once at the end.

    Returns:
        0 where a trial has finished, 1 where none has; 130 and 143 after Ctrl-C and SIGTERM.

    Raises:
        UserError: Another process on this machine leads the sweep; nothing was started then.
    """
    raise NotImplementedError


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
        until_empty: Whether to end when no trial waits or runs anywhere.
        logs: The folder of runs; by default `logs/`.

    Returns:
        0, or 130 and 143 after Ctrl-C and SIGTERM.
    """
    raise NotImplementedError
