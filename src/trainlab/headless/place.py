"""Where a run is recorded, and what executes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.run import lock, naming, record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nbformat import NotebookNode

LOG = "output.log"
# The folder of a run that is ready to start, and its runner's lock, None where another host has it
Prepared = tuple[Path, lock.Lock | None]


class Place:
    """A new folder, and a worker on this machine.

    Attributes: `sweep`, what `run.json` says of the sweep that a run is a trial of, None for any other run.
    """

    module = "trainlab.headless.worker"
    log = LOG

    def __init__(self, sweep: Mapping[str, Any] | None = None) -> None:
        self.sweep = sweep

    def new(self, experiment: str, name: str | None, config: Mapping[str, Any], **fields: Any) -> Prepared:
        """Make a new run's folder and record; return it, and the lock that says that it has a runner."""
        folder = naming.new_folder(paths.logs().resolve(), experiment, name)
        create(folder, config, sweep=self.sweep, **fields)
        return folder, runner_lock(folder)

    def keep(self, folder: Path, nb: NotebookNode) -> None:
        """Keep the notebook that is to be executed."""
        from trainlab.headless import (
            notebook,  # nbformat takes 8 MiB and a moment, which a script need not pay
        )

        notebook.write(folder, nb)

    def arguments(self, folder: Path, program: Path, module: str, arguments: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        """Return what the worker is given besides the folder, once all is ready."""
        return arguments


def create(folder: Path, config: Mapping[str, Any], **fields: Any) -> None:
    """Write a new run's record."""
    seed = config.get("seed")
    seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
    record.create(folder, folder.parent.name, config=config, seed=seed, **fields)


def runner_lock(folder: Path) -> lock.Lock:
    """Take the lock that says that a run has a runner, which nobody else can have yet."""
    held = lock.hold(folder, lock.RUNNER)
    assert held is not None, "a folder made a moment ago, or whose other lock we have, has no other holder"
    return held
