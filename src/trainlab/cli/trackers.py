"""`trainlab export`."""

from __future__ import annotations

from typing import Annotated

import typer

from trainlab.cleaning import printable
from trainlab.cli.options import Logs, Reference, row


def export(
    run: Reference,
    to: Annotated[str, typer.Option("--to", help="wandb, mlflow or csv.")],
    logs: Logs = None,
) -> None:
    """Send a recorded run to a tracker: settings, curves, status."""
    from trainlab.runs import export as exporting

    found = row(run, logs)
    count = exporting.export(found, to)
    print(printable(f"{found.label}: {count:,} points sent to {to}"))
