"""The sweeps that a worker knows: found anew every few seconds, let go of once they have ended or are gone.

Each open sweep without a head takes some file descriptors; those of a thousand that have ended nobody needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.sweeps import database, definition
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

Sign = tuple[tuple[int, int, int] | None, ...]  # inode, time and size of the files that a change would touch


class Joined:
    """The queues of the sweeps at an address, or of some of them.

    Args:
        at: The database's address; None for the sweeps that have none, whose queue lies in `logs/.sweeps`.
        names: Of sweeps; of none means all of them, those made later too.
        logs: The folder of runs.
        say: Called with a sentence of a sweep that can't be worked on, once.
    """

    def __init__(self, at: str | None, names: Sequence[str], logs: Path, say: Callable[[str], None]) -> None:
        self.at, self._names, self._logs, self._say = at, names, logs, say
        self._open: dict[str, Queue] = {}
        self._passed: dict[str, Sign] = {}  # those that have ended or can't be read, as they were then
        # Those that can't be worked on, and why: the text alone, for an error's frames hold files open
        self._lost: dict[str, str] = {}
        self._untold: list[str] = []  # of these

    def look(self, busy: Container[str] = ()) -> list[Queue]:
        """Return the queues that may have trials now; those of `busy` sweeps stay as they are.

        Raises:
            UserError: Of the sweeps that were named none can be worked on, and none is busy.
        """
        found = self._names or [path.parent.name for path in self._place.glob(f"*/{definition.FILE}")]
        for name in [each for each in self._open if each not in found and each not in busy]:
            self.leave(name)
        for name in found:
            if name not in busy:
                self._look_at(name)
        idle = not any(name in busy for name in self._names)
        if self._names and idle and self._lost.keys() >= set(self._names):
            raise UserError(self._lost[self._names[0]])
        self.tell()
        return [*self._open.values()]

    def leave(self, name: str, error: UserError | None = None) -> None:
        """Let go of a sweep, perhaps by an error, for `tell`; the next look is at it, too."""
        if (queue := self._open.pop(name, None)) is not None:
            queue.close()
        if error is not None and str(error) != self._lost.get(name):
            self._lost[name] = str(error)
            self._untold.append(name)

    def tell(self) -> None:
        """Say what sweeps were let go of by an error, and why."""
        untold, self._untold = self._untold, []
        for name in untold:
            # of one that is led that process is about to make the study
            if not lock.taken(self._place / name, definition.LEADER):
                self._say(f"the sweep {name} is left alone: {self._lost[name]}")

    @property
    def _place(self) -> Path:
        return self._logs / definition.SWEEPS

    def _look_at(self, name: str) -> None:
        """Open a sweep that has trials, close one that has none any more."""
        sign = self._sign(name)
        if self._passed.get(name) == sign and name not in self._open:
            return
        try:
            known = definition.load(name, self._logs)
            # the head may have another address here than where the sweep was begun: what it keeps decides
            if (known.at is None) != (self.at is None):
                return
            if name in self._open and not self._open[name].is_current():
                self._open.pop(name).close()
            if name not in self._open:
                self._open[name] = Queue.open(known, self.at, self._logs)
                if self._lost.pop(name, None):
                    self._untold = [each for each in self._untold if each != name]
            # a head's studies share one connection, and another host may give an ended one new trials
            if self.at is None and self._open[name].is_over():
                self.leave(name)
                self._passed[name] = sign  # what has changed since is looked at
        except UserError as error:
            passing = isinstance(error, QueueError) and error.passing
            if passing and self.at is not None:
                raise
            self.leave(name, error)
            # no file here changes once a head has the study, or has it again
            if self.at is None and not passing:
                self._passed[name] = sign

    def _sign(self, name: str) -> Sign:
        return tuple(
            _stat(self._place / name / each)
            for each in (definition.FILE, database.FILE, f"{database.FILE}-wal")
        )


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
