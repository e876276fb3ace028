"""`trainlab stop` and `trainlab logs`: what one does with a running run."""

from __future__ import annotations

import signal

import typer

from trainlab.cli.options import Logs, Reference
from trainlab.errors import UserError


def stop(run: Reference, logs: Logs = None) -> None:
    """Stop a run; it saves a checkpoint first."""
    from trainlab.run import find, stopping

    print(stopping.stop(find.find(run, logs)))


def show_log(run: Reference, logs: Logs = None) -> None:
    """Show what a headless run has printed; in a terminal also what it prints from now on."""
    from trainlab.headless import launcher
    from trainlab.run import find, lock

    folder = find.find(run, logs)
    log = folder / launcher.LOG
    if not log.is_file():
        raise UserError(
            f"The run {folder.name} has no {launcher.LOG}: it was not started by `trainlab run`. What it "
            "prints stands in its notebook or its terminal."
        )
    try:
        launcher.show_log(log, lambda: lock.alive(folder))
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        raise typer.Exit(128 + signal.SIGPIPE) from None
