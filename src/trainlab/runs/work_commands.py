"""`trainlab stop` and `trainlab logs`: what one does with a run at work."""

from __future__ import annotations

import signal

import typer

from trainlab.errors import UserError
from trainlab.runs.options import Logs, Reference


def stop(run: Reference, logs: Logs = None) -> None:
    """End a run at work; it saves a checkpoint first."""
    from trainlab.runs import lookup, stopping

    print(stopping.stop(lookup.find(run, logs)))


def show_log(run: Reference, logs: Logs = None) -> None:
    """Show what a headless run has printed; in a terminal also what it prints from now on."""
    from trainlab.runs import lock, lookup, notebook, viewer

    folder = lookup.find(run, logs)
    log = folder / notebook.LOG
    if not log.is_file():
        raise UserError(
            f"The run {folder.name} has no {notebook.LOG}: it was not started by `trainlab run`. What it "
            "prints stands in its notebook or its terminal."
        )
    try:
        viewer.show(log, lambda: lock.alive(folder))
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        raise typer.Exit(128 + signal.SIGPIPE) from None
