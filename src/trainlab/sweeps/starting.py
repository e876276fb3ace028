"""Starts the runs of trials in two steps: a run is ready, with its folder; then, written down, it begins.

A new run of a script is made ready in the leading process: that takes milliseconds. A notebook's settings
class may import torch and pandas, and a run that goes on has gigabytes of checkpoints to check. Both are done
in a process of their own: `python -m trainlab.sweeps.starting ORDER`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError
from trainlab.headless import finding, launcher
from trainlab.run import checkpoint, lock, record
from trainlab.sweeps.definition import working_in

if TYPE_CHECKING:
    from collections.abc import Mapping


GO = b"go\n"
NOT_BEGUN = "its sweep has ended"  # before the run began


class StartError(UserError):
    """The process that was to make a run ready has died, or somebody else executes the run."""


@dataclass(frozen=True)
class Order:
    """A run to be started, with what `run.json` says of its sweep; `resume` is the folder to go on in."""

    program: str
    module: bool
    words: tuple[str, ...]
    arguments: tuple[str, ...]
    name: str
    sweep: dict[str, Any]
    resume: str = ""
    working_folder: str = ""


@dataclass
class Ready:
    """A run that can begin; `remark` says why it begins anew instead of going on."""

    folder: Path
    held: lock.Lock
    arguments: tuple[str, ...]
    remark: str = ""

    def go(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the run's process, which is not to be ended by a signal before it can save anything."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, launcher.PASSED_ON)
        try:
            return launcher.start(self.folder, self.held, self.arguments, environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def drop(self, why: str) -> None:
        """Let the run be: it ends before it began."""
        with contextlib.suppress(OSError, UserError):
            record.write_end(self.folder, "interrupted", why)
        self.held.release()


def prepared(order: Order) -> Ready:
    """Make a run ready: the old one where it has a checkpoint and can go on, a new one elsewhere.

    Raises:
        UserError: The run can't be.
    """
    with working_in(order.working_folder):
        return _prepared(order)


def _prepared(order: Order) -> Ready:
    remark, sweep = "", order.sweep | {"ready_by": os.getpid()}
    if order.resume:
        folder = Path(order.resume)
        if lock.alive(folder):  # a new run beside it would be the trial's second one
            raise StartError(f"somebody else goes on with its run {folder.name}")
        try:
            if checkpoint.newest(folder) is None:
                raise UserError(f"{folder.name} has no whole checkpoint.")
            _, held, arguments = launcher.prepared(
                order.program, module=order.module, resume=order.resume, sweep=sweep
            )
            return Ready(folder, held, tuple(arguments))
        except UserError as error:
            remark = f"begun again in a new folder: {error}"
    folder, held, arguments = launcher.prepared(
        order.program,
        order.words,
        order.arguments,
        module=order.module,
        name=order.name,
        sweep=sweep,
    )
    return Ready(folder, held, tuple(arguments), remark)


class Start:
    """A run on its way to its begin.

    Raises:
        UserError: Here and in `ready`, where the run can't be.
        StartError: In `ready`.
    """

    def __init__(self, order: Order, environment: Mapping[str, str]) -> None:
        self._environment, self._apart = environment, None
        self._ready: Ready | None = None
        self.folder: Path | None = None  # once it is known
        self.remark = ""
        if (order.module or order.program.endswith(finding.SCRIPT)) and not order.resume:
            self._ready = prepared(order)
            self.folder = self._ready.folder
            return
        self._apart = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ) | dict(environment),
            start_new_session=True,
        )

    def ready(self) -> bool:
        """Tell whether the run can begin."""
        if self._apart is None or self.folder is not None:
            return True
        assert self._apart.stdout is not None, "a pipe"
        if not select.select([self._apart.stdout], [], [], 0)[0]:
            return False
        try:
            answer = json.loads(self._apart.stdout.readline())
        except ValueError:
            code = self._apart.wait()
            raise StartError(f"what makes its run ready was killed (exit code {code})") from None
        if "error" in answer:
            self._apart.communicate()
            raise (StartError if answer["lost"] else UserError)(answer["error"])
        self.folder, self.remark = Path(answer["folder"]), answer["remark"]
        return True

    def go(self) -> subprocess.Popen[bytes] | None:
        """Let it begin; return its process where that is a child of this one."""
        if self._ready is not None:
            return self._ready.go(self._environment)
        assert self._apart is not None, "one of the two"
        self._apart.communicate(GO)
        return None

    def drop(self) -> None:
        """Let it be."""
        if self._ready is not None:
            self._ready.drop(NOT_BEGUN)
        if self._apart is not None:
            self._apart.communicate()  # the end of its input tells it


def main(order: Order) -> None:
    """Make a run ready, say where, and start it once somebody says so: whoever ordered it may be gone."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ready = prepared(order)
        except UserError as error:
            answer = {"error": str(error), "lost": isinstance(error, StartError)}
        else:
            answer = {"folder": str(ready.folder), "remark": ready.remark}
    with contextlib.suppress(BrokenPipeError):  # of whoever is gone
        print(json.dumps(answer), flush=True)
    if "error" in answer:
        return
    if sys.stdin.buffer.readline() == GO:
        ready.go({})
    else:
        ready.drop(NOT_BEGUN)


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
