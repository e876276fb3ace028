"""How long a run may take to stop: the current step, and a save that has begun.

Whoever stops runs waits by these rules: the worker, Jupyter's server, a team of processes; `jupyter/entry`
and `local/local.sh`, too, by the same signs: `longest_step` in run.json, an unfinished file in checkpoints/.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.run import checkpoint, record

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 240.0  # seconds, whatever is being done; the containers' engine kills after 300
UNFINISHED = ".*.tmp"  # what `atomic.replacing` calls a file that is not yet whole


class Deadline:
    """The end of a run's grace: so many seconds from now, and later where a save has begun by then."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._since = time.monotonic()

    def over(self) -> bool:
        """Tell whether the grace is over."""
        passed = time.monotonic() - self._since
        return passed > LONGEST or (passed > self._seconds and not saving(self._folder))


def for_step(folder: Path) -> float:
    """Return the seconds that the current step of a training may take, 0 where steps are short or unknown."""
    try:
        longest = float(record.read(folder).model_dump().get("longest_step") or 0.0)
    except (UserError, TypeError, ValueError):
        return 0.0
    return min(max(0.0, 2 * longest), LONGEST / 2)  # in this order 0.0 is the larger one of NaN, too


def saving(folder: Path) -> bool:
    """Tell whether a checkpoint of a run is being written."""
    return any((folder / checkpoint.FOLDER).glob(UNFINISHED))
