"""`trainlab runs tag` and `note`: what people say about a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainlab.runs.options import Logs, Reference


def tag(
    context: typer.Context,
    run: Reference,
    names: Annotated[list[str], typer.Argument(metavar="TAG...")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    logs: Logs = None,
) -> None:
    """Give a run tags, or take them away; `--where tag=TAG` finds it."""
    from trainlab.runs import lookup, remarks

    folder = lookup.find(run, logs or context.obj)
    left = (remarks.untag if remove else remarks.tag)(folder, names)
    print(f"{folder.name}: {' '.join(left.tags) or 'no tags'}")


def note(
    context: typer.Context,
    run: Reference,
    text: Annotated[str | None, typer.Argument(help="The note; '' removes it, nothing prints it.")] = None,
    logs: Logs = None,
) -> None:
    """Write a note on a run, or print it."""
    from trainlab.runs import lookup, remarks
    from trainlab.runs.display import printable

    folder = lookup.find(run, logs or context.obj)
    if text is not None:
        remarks.note(folder, text)
        return
    for line in remarks.read(folder).note.splitlines():
        sys.stdout.write(printable(line) + "\n")
