"""The command that shows the board without Jupyter, and by which Jupyter starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainlab.cli.options import Logs


def board(
    port: Annotated[str | None, typer.Option(metavar="PORT", help="Default: BOARD_PORT, or 8899.")] = None,
    socket: Annotated[
        Path | None, typer.Option(help="A Unix socket instead, which Jupyter's proxy stands before.")
    ] = None,
    logs: Logs = None,
) -> None:
    """Show all runs on pages of this machine's own address: look, compare, stop, resume, start.

    In the stack it stands behind Jupyter's login, at …:8888/board/.
    """
    from trainlab import extras, paths

    extras.need("fastapi", "The board", "trainlab[board]")
    from trainlab.board import server
    from trainlab.web import binding

    folder = logs or paths.logs()
    if socket is not None:
        server.behind_jupyter(folder, socket)
        return
    server.alone(folder, binding.port_of(port, "BOARD_PORT", server.PORT))
