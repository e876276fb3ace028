"""The command `trainlab`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import trainlab
from trainlab.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, data and all
    help="An experiment stack for deep learning: run notebooks, compare their runs.",
)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"trainlab {trainlab.__version__}")
        raise typer.Exit


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="A name under notebooks/, or a path.")],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the parameters.")] = None,
    seed: Annotated[int | None, typer.Option(help="Set the notebook's parameter `seed`.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return at once.")] = False,
) -> None:
    """Execute a notebook headless and record it as a run."""
    from trainlab.runs import notebook as headless

    code = headless.run(notebook, parameters or [], name=name, seed=seed, detach=detach)
    raise typer.Exit(code)


def main() -> None:
    """Run the command; a mistake of the user's ends with a sentence and code 2."""
    try:
        app()
    except UserError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
