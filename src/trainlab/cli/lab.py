"""`trainlab new` and `trainlab update`: a lab of one's own, and how it stays up to date."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainlab.cleaning import lines as printable_lines
from trainlab.errors import UserError, some


def new(
    folder: Annotated[
        Path | None, typer.Argument(metavar="NAME", help="The lab's name, or the path of its new folder.")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Add the stack to the project in this folder.")
    ] = False,
    examples: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="EXAMPLE", help="Bring an example along, such as news."),
    ] = None,
) -> None:
    """Make a lab: a folder with the whole stack, a small experiment, a notebook and a test."""
    from trainlab.lab import create

    if here == (folder is not None):
        raise UserError("Either a name, trainlab new my-lab, or --here, for the project in this folder.")
    made = (
        create.add_here(Path.cwd(), examples or []) if folder is None else create.new(folder, examples or [])
    )
    done = "added to this project" if here else f"made {made.folder}/"
    experiment = f"; a small experiment is in src/{made.package}/" if made.package else ""
    print(f"{done}: {made.files} files{experiment}")
    if made.kept:
        print(f"kept as they were: {some(made.kept, 20)}")
    for name, lines in made.add.items():
        print(f"{name} is yours; add these lines to it before you go on:\n")
        print("\n".join(f"    {line}" for line in lines.splitlines()) + "\n")
    print("next: " + ("make demo" if here else f"cd {shlex.quote(str(made.folder))} && make demo"))


def update(
    yes: Annotated[bool, typer.Option("--yes", help="Write the changes without asking.")] = False,
) -> None:
    """Bring this lab's files of the stack to the installed version; what you changed in them stays."""
    import trainlab
    from trainlab.lab import update as updating

    planned = updating.plan(Path.cwd())
    for name, why in planned.kept.items():
        print(f"left as it is: {name}: {why}")
    if planned.nothing:
        print(f"up to date: trainlab {trainlab.__version__}")
        return
    print(printable_lines(planned.diff()), end="")
    count = len(planned.write)
    what = f"{count} files, as above" if count else f"{planned.wheel[0]}, and no file of the stack"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"Would change: {what}. Nothing was written: --yes writes it.")
        typer.confirm(f"Write {what}?", abort=True)
    planned.apply()
    conflicts = [name for name in planned.write if name.endswith(".new")]
    if conflicts:
        print(f"beside yours lie trainlab's, for you to merge: {some(conflicts, 20)}")
    print(f"updated to trainlab {trainlab.__version__}; `make up` builds what is new")
